"""Whom a call is made for: a tenant, and the key or subject by which it came in.

It is set once a call, by the interceptor, and read by whatever belongs to a tenant. Tasks that
a call starts inherit it.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

DEFAULT_TENANT = "default"
"""The tenant of whom nobody distinguishes: of open mode, and of all that was there
before there were tenants."""


_TENANT = re.compile(r"[a-z0-9-]{1,63}")


def is_tenant(name: str) -> bool:
    """Whether that can be a tenant's name; the tables' constraints say the same."""
    return _TENANT.fullmatch(name) is not None


class Scope(enum.StrEnum):
    """What a caller may do; each includes the ones before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Identity:
    """`tenant`: name of 1 to 63 characters of a-z, 0-9 and hyphens. `key`: id of the API
    key, or subject of the token; no secret."""

    tenant: str
    key: str = ""
    scope: Scope = Scope.ADMIN


ANYBODY = Identity(DEFAULT_TENANT)
"""A caller whom nobody asked who they are."""
NOBODY = Identity("", "", Scope.READ)
"""A caller of whom it is not known yet who they are, or who was refused. No rows are theirs."""
_current: ContextVar[Identity] = ContextVar("identity", default=ANYBODY)


def current() -> Identity:
    """Return whom the call is made for that is being worked on."""
    return _current.get()


def become(identity: Identity) -> None:
    """Do what this task does from now on for `identity`."""
    _current.set(identity)


@contextmanager
def acting_as(identity: Identity) -> Iterator[None]:
    """Do what is within for `identity`."""
    token = _current.set(identity)
    try:
        yield
    finally:
        _current.reset(token)
