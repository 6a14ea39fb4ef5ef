"""The bill in a response's trailers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import grpc
from opentelemetry import trace

from quintet_gateway.billing.meter import Meter
from quintet_servicekit.attributes import COST_NANOS, COST_SAVED_NANOS
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.trailers import add_trailers

COST_KEY = "quintet-cost-nanos"
"""What the request cost."""
SAVED_KEY = "quintet-cost-saved-nanos"
"""What kept results saved."""
BILL_KEY = "quintet-cost-bill-bin"
"""The whole `Bill`."""


class Books(Protocol):
    """Who takes from meters what is due; see `admission.Admission`."""

    def settle(self, meter: Meter) -> None: ...


@contextmanager
def billed(
    meter: Meter, context: grpc.aio.ServicerContext[Any, Any], books: Books
) -> Iterator[None]:
    """Tell the bill of what is within in the call's trailers and on its span, and settle it,
    whatever way it ends."""
    try:
        yield
    except ServiceError as error:
        if error.reason in (Reason.BUDGET_EXHAUSTED, Reason.RATE_LIMITED):
            meter.calls = 0  # it was not let begin
        raise
    finally:
        books.settle(meter)
        bill = meter.bill()
        add_trailers(context, *meter.told)
        add_trailers(
            context,
            (COST_KEY, str(bill.cost_nanos)),
            (SAVED_KEY, str(bill.saved_nanos)),
            (BILL_KEY, bill.SerializeToString()),
        )
        trace.get_current_span().set_attributes(
            {COST_NANOS: bill.cost_nanos, COST_SAVED_NANOS: bill.saved_nanos}
        )
