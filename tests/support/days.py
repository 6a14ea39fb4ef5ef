"""Days of UTC that do not end while a test runs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, time, timedelta


async def the_same_day(seconds: float) -> None:
    """Return when at least so many seconds are left of the day; as a rule at once.

    For tests of processes whose clock is the machine's: what they count by the day begins
    anew at midnight.
    """
    now = datetime.now(UTC)
    midnight = datetime.combine(now.date() + timedelta(days=1), time(), UTC)
    left = (midnight - now).total_seconds()
    if left < seconds:
        await asyncio.sleep(left + 0.1)
