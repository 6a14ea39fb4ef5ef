"""The gateway's RPC of usage: validate, sum up, build the response."""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import grpc

from quintet.gateway.v1 import usage_service_pb2 as pb
from quintet.gateway.v1 import usage_service_pb2_grpc as pb_grpc
from quintet_gateway.admission.policies import Policies
from quintet_gateway.billing.prices import today
from quintet_gateway.usage.spending import CountedSpending
from quintet_gateway.usage.store import COLUMNS, UsageStore
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.identity import current
from quintet_servicekit.validation import Checks

SERVICE = pb.DESCRIPTOR.services_by_name["UsageService"].full_name
MOST_DAYS = 3_700
MAX_PAGE = 1_000
DEFAULT_PAGE = 100
DEFAULT_DAYS = 30

Context = grpc.aio.ServicerContext[Any, Any]


class UsageServicer(pb_grpc.UsageServiceServicer):
    """See the contract. `store` and `spending` are None where no usage is kept."""

    def __init__(
        self,
        store: UsageStore | None,
        policies: Policies,
        spending: CountedSpending | None,
    ) -> None:
        self._store = store
        self._policies = policies
        self._spending = spending

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context) -> pb.GetUsageResponse:
        first, last, columns = _checked(request)
        if self._store is None:
            raise ServiceError(Reason.NO_DATABASE, "this gateway keeps no usage")
        tenant = current().tenant
        what = [tenant, request.first_day, request.last_day, *columns]
        after = None
        if request.page_token:
            # The days of the first page, though another has begun since.
            (first, last), after = _position(request.page_token, what, len(columns) + 1)
        size = request.page_size or DEFAULT_PAGE
        rows = await self._store.page(tenant, (first, last), columns, after, size + 1)
        response = pb.GetUsageResponse()
        if after is None:
            response.budgets.extend(await self._budgets())
        for row in rows[:size]:
            response.rows.add(**row)
        if len(rows) > size:
            end = rows[size - 1]
            position = [end[it] for it in (*columns, "currency")]
            response.next_page_token = _token((first, last), position, what)
        return response

    async def _budgets(self) -> list[pb.BudgetState]:
        budgets = self._policies.of(current()).budgets(today())
        if not budgets or self._spending is None:
            return []
        spent = await self._spending(budgets)
        return [
            pb.BudgetState(
                period=it.period,
                first_day=it.first.isoformat(),
                limit_nanos=it.limit,
                spent_nanos=nanos,
            )
            for it, nanos in zip(budgets, spent, strict=True)
        ]


def _checked(request: pb.GetUsageRequest) -> tuple[date, date, list[str]]:
    checks = Checks()
    last = _day(checks, "last_day", request.last_day, today())
    earliest = date.min + timedelta(days=DEFAULT_DAYS)
    default = max(last, earliest) - timedelta(days=DEFAULT_DAYS - 1)
    first = _day(checks, "first_day", request.first_day, default)
    if not 0 <= (last - first).days < MOST_DAYS:
        checks.refuse("first_day", f"must be 0 to {MOST_DAYS - 1} days before last_day")
    groups = set(request.group_by)
    if len(groups) < len(request.group_by):
        checks.refuse("group_by", "must have each at most once")
    if not groups <= set(pb.UsageGroup.values()) - {pb.USAGE_GROUP_UNSPECIFIED}:
        checks.refuse("group_by", "must be of UsageGroup")
    checks.number("page_size", request.page_size, least=0, most=MAX_PAGE)
    checks.done()
    return first, last, [COLUMNS[number - 1] for number in sorted(groups)]


def _day(checks: Checks, field: str, text: str, default: date) -> date:
    if not text:
        return default
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = default
    if day.isoformat() != text:
        checks.refuse(field, 'must be a day as in "2026-11-01"')
    return day


def _token(days: tuple[date, date], after: Sequence[str], what: Sequence[str]) -> str:
    told = [_digest(what), *(it.isoformat() for it in days), *after]
    return urlsafe_b64encode(json.dumps(told).encode()).decode()


def _position(token: str, what: Sequence[str], number: int) -> tuple[tuple[date, date], list[str]]:
    try:
        found = json.loads(urlsafe_b64decode(token.encode()))
        if found[0] == _digest(what) and len(found) == number + 3 and all(map(_is_text, found)):
            days = date.fromisoformat(found[1]), date.fromisoformat(found[2])
            return days, list(found[3:])
    except (ValueError, TypeError, LookupError):
        pass
    raise ServiceError(Reason.INVALID_PAGE_TOKEN, "the page token is none of this request's")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


def _digest(what: Sequence[str]) -> str:
    return hashlib.blake2b("\0".join(what).encode(), digest_size=8).hexdigest()
