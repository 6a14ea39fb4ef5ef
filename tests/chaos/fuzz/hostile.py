"""Values, bytes and metadata that an honest client would hardly send."""

from __future__ import annotations

import math
import random
import struct
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from chaos.fuzz.lexicon import STEADY
from quintet_servicekit.consistency import Epoch, encode_token
from quintet_servicekit.fault_injection import HEADER

_F = FieldDescriptor

TEXTS = (
    "",
    " ",
    "\0",
    "honey\0bees",
    "\r\n\t",
    "\x1b[2J\x7f\x85",
    "'; DROP TABLE retriever.collection; --",
    "%s%n%d{}{{0}}$1\\",
    "../../etc/passwd",
    "& | ! ( ) <-> :* a & b | !",
    '"',
    "<|im_start|>system\n<|im_end|>",
    "[CLS] [SEP] [MASK] ##ing",
    "\ufffe\uffff\U0010ffff",
    "\u202e\u200b\u200d\ufeff",
    "👩‍👩‍👧‍👦" * 40,
    "e" + "\u0301" * 1_000,
    "İıſKÅ",
    "a" * 201,
    "a" * 513,
    "x" * 4_001,
    "word " * 2_500,
    "字" * 10_001,
    ". " * 3_000,
    "9" * 400,
    "NaN",
    "{" * 200,
    '{"$ref":"#"}',
    '{"type":"object","properties":' * 30,
    "[" * 5_000,
    encode_token(STEADY, Epoch(0, 0)),
    encode_token(STEADY, Epoch(2**64 - 1, 2**64 - 1)),
    encode_token(STEADY, Epoch(1, 2**63)),
    "é" * 255,
    "=" * 9,
)

NUMBERS = {
    _F.CPPTYPE_INT32: (0, -1, 2**31 - 1, -(2**31)),
    _F.CPPTYPE_INT64: (0, -1, 2**63 - 1, -(2**63), 253_402_300_800),
    _F.CPPTYPE_UINT32: (0, 1, 2**31, 2**32 - 1, 1_001, 4_097),
    _F.CPPTYPE_UINT64: (0, 2**63, 2**64 - 1),
    _F.CPPTYPE_FLOAT: (math.nan, math.inf, -math.inf, -0.0, 3.4e38, 1e-45, -1.0, 2.0000002),
    _F.CPPTYPE_DOUBLE: (math.nan, math.inf, -math.inf, -0.0, 1.7e308, 5e-324, -1.0, 1e16),
    _F.CPPTYPE_ENUM: (0, 1, 2, 3, 99, -1, 2**31 - 1),
    _F.CPPTYPE_BOOL: (False, True),
}


def value(field: FieldDescriptor, rng: random.Random) -> Any:
    """Return a hostile value of a field that is no message."""
    if field.cpp_type != _F.CPPTYPE_STRING:
        return rng.choice(NUMBERS[field.cpp_type])
    return _bytes(rng) if field.type == _F.TYPE_BYTES else rng.choice(TEXTS)


def _bytes(rng: random.Random) -> bytes:
    floats = rng.choice(((math.nan,), (math.inf, 1.0), (0.0,), (3.4e38,), (1e-45,), (1.0, -1.0)))
    count = rng.choice((1, 2, 383, 384, 385, 4_000, 4_001))
    packed = struct.pack(f"<{len(floats)}f", *floats) * (count // len(floats))
    return rng.choice((b"", b"\0", b"\xff" * 7, rng.randbytes(rng.randint(1, 300)), packed, packed))


def mutated(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Return the bytes of a message with some of them changed, taken away or put in."""
    for _ in range(rng.randint(1, 3)):
        data = _mutated_once(bytearray(data), others, rng)
    return data


def _mutated_once(data: bytearray, others: list[bytes], rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    match rng.randrange(8):
        case 0 if data:  # bits flip
            for _ in range(rng.randint(1, 8)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 1:  # the end is missing
            del data[at:]
        case 2:  # the head of this, the tail of that
            other = rng.choice(others)
            data[at:] = other[rng.randrange(len(other) + 1) :]
        case 3:  # a piece twice
            data[at:at] = data[at : at + rng.randint(1, 64)]
        case 4:  # no UTF-8 any more
            data[at : at + 1] = rng.choice((b"\xff", b"\xc3", b"\xed\xa0\x80"))
        case 5:  # an unknown field, a number that doesn't end, a length beyond the end
            data += rng.choice((b"\xf8\xff\x01\x05", b"\x08" + b"\xff" * 11, b"\x0a\xff\xff\x7f"))
        case 6:  # groups without end
            data += b"\x0b" * rng.choice((1, 200))
        case _:
            data[at:at] = rng.randbytes(rng.randint(1, 32))
    return bytes(data)


Metadata = tuple[tuple[str, str | bytes], ...]


def metadata(rng: random.Random) -> Metadata:
    """Return odd metadata: traces, binary values, much of it, faults that nobody allows."""
    return rng.choice(
        (
            (("traceparent", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"),),
            (("traceparent", "ff-" + "f" * 32 + "-" + "f" * 16 + "-ff"),),
            (("traceparent", "00-" + "a" * 32 + "-" + "b" * 16 + "-01"), ("tracestate", "," * 600)),
            (("traceparent", rng.choice(("", "-", "00", "junk" * 200))),),
            (("traceparent", "00-1-1-1"), ("traceparent", "00-2-2-2")),
            (("baggage", "a=b," * 300),),
            (("x-odd-bin", rng.randbytes(64)), ("grpc-trace-bin", rng.randbytes(29))),
            (("traceparent-bin", rng.randbytes(9)),),
            tuple((f"x-many-{number}", "value") for number in range(60)),
            (("x-large", "v" * 6_000),),
            (("x-too-large", "v" * 20_000),),
            (("authorization", "Bearer " + "x" * 300), ("user-agent", "curl")),
            ((HEADER, rng.choice(("", "embedder", "a/b;c", ";" * 300, "*/*;abort=OK"))),),
            ((HEADER, "embedder/Embed;abort=UNAVAILABLE;percent=20"),),
        )
    )
