"""Registers the fixtures that the tests share; see `support/`."""

import os
import signal
import sysconfig

from quintet_local.supervisor import OPEN

# Most tests are of something else than who may ask, and many call a service directly.
os.environ.update(OPEN)

# Shells have what they start in the background ignore it, and so would all processes of the tests.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Programs that are installed for the tests, such as kubectl where the machine has none.
os.environ["PATH"] += os.pathsep + sysconfig.get_path("scripts")

pytest_plugins = [
    "support.command_line",
    "support.earlier",
    "support.postgres",
    "support.stack",
    "support.valkey",
]
