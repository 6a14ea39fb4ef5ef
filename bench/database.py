"""The stack's database, for what is measured without a service between."""

from __future__ import annotations

from pathlib import Path

from psycopg import sql

from quintet_local.supervisor import Stack
from quintet_servicekit.identity import DEFAULT_TENANT
from quintet_servicekit.postgres import tenancy

SEE_ROWS = sql.SQL("SELECT set_config({}, {}, false)").format(tenancy.SETTING, DEFAULT_TENANT)
"""Without it a connection finds nothing: every row is a tenant's."""


def database_url(stack: Stack) -> str:
    """Return the URI of the stack's database, with its password; reads a file."""
    endpoint = stack.endpoints["postgres"]
    password = Path(endpoint["password_file"]).read_text()
    return endpoint["dsn"].replace("@", f":{password}@")
