"""Epochs of collections, and the consistency tokens that name them to callers.

Every write to a collection raises its epoch by one, in the write's own transaction.
A token is opaque to callers; the retriever makes them, and the gateway compares
them with what its caches know.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass

from quintet_servicekit.errors import Reason, ServiceError, Violation
from quintet_servicekit.identity import DEFAULT_TENANT, current

_VERSION = 1
_LAYOUT = struct.Struct(">BQQ8s")
MAX_TOKEN_CHARS = 200
LAST = 2**63 - 1
"""Number of the epoch at which a collection is deleted: there is none after it."""


@dataclass(frozen=True, order=True, slots=True)
class Epoch:
    """A state of a collection; a greater one includes all writes of a smaller one.

    `collection` is the number by which the database knows the collection. It is never
    used again, and a collection that is made anew under the same name has a greater
    one, so that epochs under one name are ordered across deletions too.
    `number` counts the writes.
    """

    collection: int
    number: int


def encode_token(name: str, epoch: Epoch) -> str:
    """Return the token of an epoch of the present tenant's collection of that name."""
    head = (_VERSION, epoch.collection, epoch.number)
    packed = _LAYOUT.pack(*head, _check(name, *head))
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def decode_token(name: str, token: str, field: str = "consistency.at_least_as_fresh") -> Epoch:
    """Return the epoch that a token of the present tenant's collection of that name stands for.

    Raises `ServiceError` INVALID_FIELD, naming `field`, for what is no token or is
    one of another collection or tenant.
    """
    if len(token) > MAX_TOKEN_CHARS:
        raise _refused(field)
    try:
        packed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        version, collection, number, check = _LAYOUT.unpack(packed)
    except (ValueError, binascii.Error, struct.error):
        raise _refused(field) from None
    if version != _VERSION or check != _check(name, version, collection, number):
        raise _refused(field)
    return Epoch(collection, number)


def _check(name: str, version: int, collection: int, number: int) -> bytes:
    # Tells a token that is damaged or of another collection or tenant; it is no secret. Who
    # makes one up can only wait for a write that never comes.
    tenant = current().tenant
    text = f"{version}:{collection}:{number}:{name}"
    if tenant != DEFAULT_TENANT:  # whose tokens are as they were before there were others
        text += f":{tenant}"
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def _refused(field: str) -> ServiceError:
    return ServiceError(
        Reason.INVALID_FIELD,
        f"{field} is not a consistency token of this collection",
        violations=[Violation(field, "is not a consistency token of this collection")],
    )
