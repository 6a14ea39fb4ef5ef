"""Registers the fixtures that the tests share; see `support/`."""

pytest_plugins = ["support.command_line", "support.postgres", "support.stack", "support.valkey"]
