"""Which limits hold for whom, as operators write them."""

from __future__ import annotations

import hashlib
from datetime import date
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from quintet_gateway.admission.budget import Budget, BudgetPolicy
from quintet_gateway.admission.demand import Places, Window
from quintet_gateway.routing.policy import Answering, Routing, Shares
from quintet_servicekit.identity import Identity, is_tenant

Scope = Literal["everybody", "tenant", "key"]
Unit = Literal["requests", "tokens"]


def _tenant(name: str) -> str:
    if not is_tenant(name):
        raise ValueError("no tenant can have this name")
    return name


TenantName = Annotated[str, AfterValidator(_tenant)]
"""A name that a tenant can have: limits of any other would hold for nobody."""
LONGEST_SECONDS = 31 * 86_400


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rate(_Model):
    """`limit` units at once, and as many again in every `seconds`."""

    limit: int = Field(ge=1, le=10**12)
    seconds: int = Field(ge=1, le=LONGEST_SECONDS)


class Limits(_Model):
    """Limits of one scope; what is left out is not limited."""

    requests: tuple[Rate, ...] = ()
    tokens: tuple[Rate, ...] = ()
    streams: int | None = Field(None, ge=1, le=10**6)

    @model_validator(mode="after")
    def _one_of_a_period(self) -> Limits:
        for rates in (self.requests, self.tokens):
            if len({rate.seconds for rate in rates}) < len(rates):
                raise ValueError("two limits of the same unit have the same seconds")
        return self


class TenantPolicy(_Model):
    """What holds for one tenant instead of what holds for every one, or every key."""

    tenant: Limits | None = None
    key: Limits | None = None
    routing: Routing | Literal[False] | None = None
    templates: Shares | None = None
    budget: BudgetPolicy | None = None


class Policy(_Model):
    """The limits of all callers together, of every tenant, of every key, every tenant's
    budget, and the tenants that have their own; and how questions are answered that leave it
    to the server."""

    everybody: Limits = Limits()
    tenant: Limits = Limits()
    key: Limits = Limits()
    routing: Routing | None = None
    templates: Shares = {}
    budget: BudgetPolicy = BudgetPolicy()
    tenants: dict[TenantName, TenantPolicy] = {}

    def of(self, identity: Identity) -> Applied:
        """Return what holds for a caller."""
        own = self.tenants.get(identity.tenant, TenantPolicy())
        scopes: tuple[tuple[Scope, str, Limits], ...] = (
            ("everybody", "", self.everybody),
            ("tenant", identity.tenant, own.tenant or self.tenant),
            ("key", f"{identity.tenant}:{short(identity.key)}", own.key or self.key),
        )
        return Applied(identity.tenant, scopes, own.budget or self.budget)

    def answering(self, tenant: str) -> Answering:
        """Return by which model and template a tenant's questions are answered."""
        own = self.tenants.get(tenant, TenantPolicy())
        routing = self.routing if own.routing is None else own.routing or None
        templates = self.templates if own.templates is None else own.templates
        return Answering(routing, templates)


class Applied:
    """The limits, and budgets, that hold for one caller. `cheaply`: what its budget does not
    allow is served in the cheapest way."""

    def __init__(
        self,
        tenant: str,
        scopes: tuple[tuple[Scope, str, Limits], ...],
        budget: BudgetPolicy,
    ) -> None:
        self._tenant = tenant
        self._budget = budget
        self.cheaply = budget.then == "cheap"
        self.requests = _windows(scopes, "requests")
        self.tokens = _windows(scopes, "tokens")
        self.streams = tuple(
            Places(f"limits:{scope}:{who}:streams", f"{scope} streams", limits.streams)
            for scope, who, limits in scopes
            if limits.streams is not None
        )

    def budgets(self, day: date) -> tuple[Budget, ...]:
        """Return the budgets of that day."""
        return self._budget.on(self._tenant, day)


def _windows(scopes: tuple[tuple[Scope, str, Limits], ...], unit: Unit) -> tuple[Window, ...]:
    return tuple(
        Window(
            key=f"limits:{scope}:{who}:{unit}:{rate.seconds}",
            name=f"{scope} {unit}/{rate.seconds}s",
            limit=rate.limit,
            seconds=rate.seconds,
        )
        for scope, who, limits in scopes
        for rate in (limits.requests if unit == "requests" else limits.tokens)
    )


def short(key: str) -> str:
    """Return a key's id, or a digest of one that is long: a token's subject can be."""
    if len(key) <= 64:
        return key
    return hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
