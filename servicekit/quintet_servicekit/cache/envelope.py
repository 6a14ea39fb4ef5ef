"""A cached value's envelope, and its compact binary form.

The form begins with two magic bytes, the number of the form and the tier's schema;
a checksum covers all that follows it. What does not parse is a miss.
"""

from __future__ import annotations

import math
import struct
from typing import NamedTuple
from zlib import crc32

_MAGIC = b"Qc"
_FORM = 1
_NEGATIVE = 1
_PREFIX = struct.Struct("<2sBHI")
"""Magic, form, schema, CRC-32 of the rest."""
_HEADER = struct.Struct("<BQQQf")
"""Flags; stored, soft and hard expiry in ms since the Unix epoch; seconds of computing."""
OVERHEAD_BYTES = _PREFIX.size + _HEADER.size


class UnreadableError(Exception):
    """Bytes that are no envelope of this schema."""


class Envelope(NamedTuple):
    """An encoded value and what is known of it.

    Times are in ms since the Unix epoch: from `soft_ms` on the value is stale, from
    `hard_ms` on it is gone. `cost_seconds` is what computing it took.
    """

    payload: bytes
    stored_ms: int
    soft_ms: int
    hard_ms: int
    cost_seconds: float
    negative: bool


def pack(envelope: Envelope, schema: int) -> bytes:
    """Return the binary form, marked as one of the tier's `schema` (0 to 65,535)."""
    rest = (
        _HEADER.pack(
            _NEGATIVE if envelope.negative else 0,
            envelope.stored_ms,
            envelope.soft_ms,
            envelope.hard_ms,
            envelope.cost_seconds,
        )
        + envelope.payload
    )
    return _PREFIX.pack(_MAGIC, _FORM, schema, crc32(rest)) + rest


def unpack(raw: bytes, schema: int) -> Envelope:
    """Return the envelope in `raw`.

    Raises `UnreadableError` when it is damaged, of another form or of another schema.
    """
    if len(raw) < OVERHEAD_BYTES:
        raise UnreadableError("shorter than a header")
    magic, form, its_schema, checksum = _PREFIX.unpack_from(raw)
    if magic != _MAGIC or form != _FORM or its_schema != schema:
        raise UnreadableError("another form or schema")
    if crc32(memoryview(raw)[_PREFIX.size :]) != checksum:
        raise UnreadableError("damaged")
    flags, stored, soft, hard, cost = _HEADER.unpack_from(raw, _PREFIX.size)
    if flags & ~_NEGATIVE or not stored <= soft <= hard or not 0 <= cost < math.inf:
        raise UnreadableError("impossible times, cost or flags")
    return Envelope(raw[OVERHEAD_BYTES:], stored, soft, hard, cost, bool(flags))
