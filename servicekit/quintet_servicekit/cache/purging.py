"""Dropping all that a tier keeps in Redis for a tenant."""

from __future__ import annotations

from quintet_servicekit.cache.errors import AwayError
from quintet_servicekit.cache.remote import Remote

STEP_KEYS = 1_000
"""Keys that Redis looks at in one step: half a millisecond, for which others wait."""


async def drop_values(remote: Remote, tier: str, tenant: str) -> int:
    """Drop a tenant's values of the tier, of all schemas, and return their number.

    Leases and streams of what is being computed stay. What is written meanwhile may
    stay too. Takes one round trip for every 1,000 keys that the server has, of whatever
    tier. Raises `AwayError`; what was dropped until then is.
    """
    # What was submitted before may be such a value.
    if not await remote.writer.flush():
        raise AwayError("values are waiting to be written")
    prefix = remote.key(f"{tier}:")
    cursor, dropped = b"0", 0
    while True:
        scan = ("SCAN", cursor, "MATCH", f"{prefix}*:{tenant}:*", "COUNT", STEP_KEYS)
        cursor, names = await remote.command(*scan)
        # Exactly schema, tenant and key follow; with more behind them it is no value.
        parts = ((name, name[len(prefix) :].split(b":")) for name in names)
        values = [name for name, its in parts if len(its) == 3 and its[1] == tenant.encode()]
        if values:
            dropped += await remote.command("UNLINK", *values)
        if cursor == b"0":
            return dropped
