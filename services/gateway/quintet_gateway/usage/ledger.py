"""Notes in the outbox what calls have taken."""

from __future__ import annotations

from typing import Protocol

from quintet_gateway.admission.policy import short
from quintet_gateway.billing.meter import Meter
from quintet_gateway.usage.entry import Entry, Used
from quintet_servicekit.identity import current


class Outbox(Protocol):
    """Takes entries and never waits; see `writer.UsageWriter`."""

    def put(self, entry: Entry) -> None: ...


class Ledger:
    """Notes usage for whom the call is made; in no `outbox` where none is kept."""

    def __init__(self, outbox: Outbox | None) -> None:
        self._outbox = outbox

    def settle(self, meter: Meter) -> int:
        """Note what a meter has counted since it was last settled; return its cost in
        nano-units."""
        used = [
            Used(
                it.model,
                it.input_tokens,
                it.cached_input_tokens,
                it.output_tokens,
                it.embedding_tokens,
                it.cost_nanos,
                it.saved_nanos,
            )
            for it in meter.due()
        ]
        calls, meter.calls = meter.calls, 0
        used = [it for it in used if any(it[1:])]
        cost = sum(it.cost for it in used)
        if self._outbox is None or not (calls or used):
            return cost
        asker = current()
        self._outbox.put(
            Entry(
                asker.tenant,
                _storable(short(asker.key)),
                _storable(meter.collection),
                meter.day.isoformat(),
                meter.prices.currency,
                calls,
                used,
            )
        )
        return cost


def _storable(text: str) -> str:
    # A token's subject may be what no database takes.
    return text.encode(errors="replace").decode().replace("\0", "?")
