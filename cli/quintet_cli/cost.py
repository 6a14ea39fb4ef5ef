"""What an answer cost, in plain words."""

from __future__ import annotations

from decimal import Decimal

from quintet.gateway.v1.bill_pb2 import Bill, BillLine


def line(bill: Bill) -> str:
    """Return a bill as one line: "cost 0.000044 USD (generator 0.00004), caches saved 0.0001
    USD", and which tokens have no price; "" for none."""
    if not bill.currency:
        return ""
    told = f"{'about ' if bill.estimated else ''}{amount(bill.cost_nanos)} {bill.currency}"
    dearest = max(bill.lines, key=lambda it: it.cost_nanos, default=None)
    if dearest is not None and dearest.cost_nanos:
        told += f" ({dearest.hop} {amount(dearest.cost_nanos)})"
    saved = f", caches saved {amount(bill.saved_nanos)} {bill.currency}" if bill.saved_nanos else ""
    unpriced = ", ".join(
        f"{it.hop} {it.model}" for it in bill.lines if it.unpriced and _has_tokens(it)
    )
    return f"cost {told}{saved}" + (f"; no price for {unpriced}" if unpriced else "")


def _has_tokens(it: BillLine) -> bool:
    return bool(it.input_tokens + it.cached_input_tokens + it.output_tokens + it.embedding_tokens)


def amount(nanos: int) -> str:
    """Return nano-units as units, to the digit: "0.0000444"."""
    digits = f"{Decimal(nanos).scaleb(-9):.9f}".rstrip("0")
    return digits.removesuffix(".") or "0"
