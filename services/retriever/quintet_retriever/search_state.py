"""The binary form of what a search's hits rest on: opaque to callers, who hand it back.

It carries a digest of its request. One that is damaged, of another request or of an
earlier version of this service is no state at all: the search is then run in full.
"""

from __future__ import annotations

import hashlib
import struct

import numpy as np

from quintet_retriever.models import Mode, SearchRequest, SearchState, Tuning
from quintet_servicekit.consistency import LAST, Epoch

MAX_STATE_BYTES = 16 * 1024
"""Bound by the contract. Two lists of 1,000 candidates, the largest setting, fit."""

_VERSION = 2
_DIGEST_BYTES = 16
_HEAD = struct.Struct(f">B{_DIGEST_BYTES}sQQQddB")
"""Version, digest, epoch, revision of the words, floors, bytes a document key."""
_KEY_BYTES = 8


def request_digest(request: SearchRequest, tuning: Tuning) -> bytes:
    """Return 16 bytes that stand for all that the hits of a request depend on, but for
    the collection."""
    parts: tuple[object, ...] = (
        request.mode.value,
        request.text if request.mode is not Mode.DENSE else "",
        request.vector if request.mode is not Mode.LEXICAL else b"",
        request.k,
        request.condition,
        tuning,
    )
    # A tuple's repr tells apart whatever its parts' reprs do, and theirs are exact.
    return hashlib.blake2b(repr(parts).encode(), digest_size=_DIGEST_BYTES).digest()


def encode_state(state: SearchState, digest: bytes) -> bytes:
    """Return the state's binary form, at most `MAX_STATE_BYTES`."""
    width = max(1, (max(state.documents, default=0).bit_length() + 7) // 8)
    keys = np.array(state.documents, dtype="<u8").view(np.uint8).reshape(-1, _KEY_BYTES)
    epoch = state.epoch
    floors = (state.dense_floor, state.lexical_floor)
    revision = state.word_revision
    head = _HEAD.pack(_VERSION, digest, epoch.collection, epoch.number, revision, *floors, width)
    return head + keys[:, :width].tobytes()


def decode_state(data: bytes, digest: bytes) -> SearchState | None:
    """Return the state, or None unless it is one of the request of that digest."""
    if len(data) < _HEAD.size:
        return None
    version, its_digest, collection, number, revision, dense, lexical, width = _HEAD.unpack_from(
        data
    )
    packed = np.frombuffer(data, dtype=np.uint8, offset=_HEAD.size)
    if version != _VERSION or its_digest != digest or not 1 <= width <= _KEY_BYTES:
        return None
    if packed.size % width:
        return None
    keys = np.zeros((packed.size // width, _KEY_BYTES), dtype=np.uint8)
    keys[:, :width] = packed.reshape(-1, width)
    documents = tuple(keys.view("<u8").ravel().tolist())
    # The digest is of the request alone, and no secret: the rest may be made up.
    if max(number, revision, *documents, 0) > LAST:
        return None
    return SearchState(Epoch(collection, number), dense, lexical, documents, revision)
