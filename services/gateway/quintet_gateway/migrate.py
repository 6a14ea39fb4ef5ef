"""Brings the gateway's tables up to date and ends: `python -m quintet_gateway.migrate`.

The service does the same when it starts; a deployment that runs this first learns of a
migration that fails before it replaces anything.
"""

import asyncio

from quintet_gateway.database import SCHEMA
from quintet_gateway.settings import Settings
from quintet_servicekit.postgres.migrator import migrate_when_possible

if __name__ == "__main__":
    asyncio.run(migrate_when_possible(Settings(), SCHEMA))
