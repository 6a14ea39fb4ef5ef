from __future__ import annotations

import pytest

from quintet.gateway.v1.bill_pb2 import Bill, BillLine
from quintet_cli import cost

LINES = [
    BillLine(hop="embedder", cost_nanos=1_000),
    BillLine(hop="generator", cost_nanos=43_400, saved_nanos=5),
]


@pytest.mark.parametrize(
    ("bill", "line"),
    [
        (Bill(), ""),
        (Bill(currency="USD"), "cost 0 USD"),
        (
            Bill(currency="USD", cost_nanos=44_400, saved_nanos=5, lines=LINES),
            "cost 0.0000444 USD (generator 0.0000434), caches saved 0.000000005 USD",
        ),
        (Bill(currency="EUR", cost_nanos=3 * 10**9, estimated=True), "cost about 3 EUR"),
        (
            Bill(currency="USD", saved_nanos=120_000_000_000),
            "cost 0 USD, caches saved 120 USD",
        ),
        (
            Bill(
                currency="USD",
                cost_nanos=1_000,
                lines=[
                    LINES[0],
                    BillLine(hop="generator", model="new", input_tokens=1, unpriced=True),
                    BillLine(hop="tokenizer", unpriced=True),
                ],
            ),
            "cost 0.000001 USD (embedder 0.000001); no price for generator new",
        ),
    ],
)
def test_a_bill_is_told_to_the_digit_with_its_dearest_hop(bill: Bill, line: str) -> None:
    assert cost.line(bill) == line
