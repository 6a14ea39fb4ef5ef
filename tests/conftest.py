"""Registers the fixtures that the tests share; see `support/`."""

import os

from quintet_local.supervisor import OPEN

# Most tests are of something else than who may ask, and many call a service directly.
os.environ.update(OPEN)

pytest_plugins = ["support.command_line", "support.postgres", "support.stack", "support.valkey"]
