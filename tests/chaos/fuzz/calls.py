"""One call: what is sent, how, and what came of it."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import grpc
from google.protobuf import text_format
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from chaos.fuzz import hostile
from chaos.fuzz.composing import composed
from chaos.fuzz.lexicon import LEARNED, SCRATCH, Lexicon
from chaos.fuzz.methods import Method
from quintet_servicekit.errors import DETAILS_KEY, DOMAIN

HANG_SECONDS = 60.0
"""A call that is not over by then hangs: twice the longest deadline that a service gives a
caller who has none."""
WROTE_TOO_LATE = "Internal error from Core"
"""What gRPC's client says of a call that ended while it still had messages to send; it does not
tell the status that the server sent."""
_HUGE_BYTES = 80 * 2**20
"""More than any service receives."""

_EOF: Any = cast(Any, grpc.aio).EOF

Manner = Literal[
    "plain", "gzip", "cancelled", "silent", "half-closed at once", "many", "slow reader", "left"
]


@dataclass(frozen=True, slots=True)
class Call:
    """`payloads` are sent in turn; `cancel_after` seconds the caller leaves."""

    number: int
    method: Method
    kind: str
    payloads: tuple[bytes, ...]
    metadata: hostile.Metadata = ()
    timeout: float | None = 10.0
    manner: Manner = "plain"
    cancel_after: float | None = None

    def told(self) -> str:
        """Return what it takes to make the call again."""
        lines = [
            f"call {self.number}: {self.method.path} of the {self.method.process}, {self.kind},"
            f" {self.manner}, timeout {self.timeout}, cancelled after {self.cancel_after}",
            *(f"metadata {key}: {value!r:.300}" for key, value in self.metadata),
        ]
        for payload in self.payloads[:3]:
            try:
                message = GetMessageClass(self.method.request).FromString(payload)
                lines.append(text_format.MessageToString(message, as_utf8=True)[:6_000])
            except DecodeError:
                lines.append("(does not parse)")
            lines.append(f"bytes {payload[:4_000].hex()}")
        return "\n".join(lines)


@dataclass(slots=True)
class Outcome:
    """What came of a call. `reason` is None where there is no ErrorInfo of ours."""

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN
    details: str = ""
    reason: str | None = None
    responses: int = 0
    seconds: float = 0.0
    hung: bool = False
    messages: list[Message] = field(default_factory=list)


class Planner:
    """Decides each call by its number and a seed, but for what was learned meanwhile."""

    def __init__(self, seed: int, methods: list[Method], words: Lexicon) -> None:
        self._seed = seed
        self._methods = methods
        self._words = words
        self._seen: dict[str, list[bytes]] = {}
        self._continued: dict[str, deque[bytes]] = {}

    def learn(self, call: Call, outcome: Outcome) -> None:
        """Take from the responses what later calls may name. A request that goes on where
        this one ended (the next page, "has it changed since?") is kept for its turn."""
        for response in outcome.messages:
            self._words.learn(response)
            if token := getattr(response, "consistency_token", ""):
                asked: Any = GetMessageClass(call.method.request).FromString(call.payloads[0])
                collection = getattr(asked, "collection", "") or getattr(asked, "name", "")
                self._words.learn_token(collection, token)
            for name, target in LEARNED.items():
                value = getattr(response, name, None)
                if value and target in call.method.request.fields_by_name:
                    request: Any = GetMessageClass(call.method.request).FromString(call.payloads[0])
                    setattr(request, target, value)
                    kept = self._continued.setdefault(call.method.path, deque(maxlen=20))
                    kept.append(request.SerializeToString())

    def call(self, number: int) -> Call:
        """Return the call of that number. Each method has its turn as often as any other."""
        rng = random.Random(f"{self._seed} {number}")
        method = self._methods[number % len(self._methods)]
        kind, payload = self._payload(method, rng)
        manner, cancel_after = self._manner(rng)
        payloads: tuple[bytes, ...] = (payload,)
        if manner == "silent" or manner == "half-closed at once":
            payloads = ()
        elif manner == "many" or method.descriptor.client_streaming:
            count = rng.choice((1, 3, 30))
            payloads += tuple(self._payload(method, rng)[1] for _ in range(count))
        return Call(
            number,
            method,
            kind,
            payloads,
            hostile.metadata(rng) if rng.random() < 0.15 else (),
            # gRPC never answers who closes a unary call without a message.
            1.0 if manner == "half-closed at once" else self._timeout(rng),
            manner,
            cancel_after,
        )

    def _payload(self, method: Method, rng: random.Random) -> tuple[str, bytes]:
        hostility, dice = 0.0, rng.random()
        continued = self._continued.get(method.path)
        if continued and rng.random() < 0.3:
            before = rng.choice(continued)
            if dice < 0.3:
                return "continued", before
            return "damaged where it continues", _damaged(before, rng)
        if dice < 0.25:
            kind, hostility = "hostile", rng.choice((0.3, 0.7))
        elif dice < 0.7:
            kind, hostility = "nearly valid", rng.choice((0.0, 0.05, 0.1))
        elif dice < 0.9995:
            kind, hostility = "mutated bytes", rng.choice((0.0, 0.1))
        else:
            return "too large", b"\x0a\x80\x80\x80\x26" + bytes(_HUGE_BYTES)
        message: Any = composed(method.request, self._words, rng, hostility)
        if method.destroys and message.name not in SCRATCH:
            message.name = rng.choice((*SCRATCH, ""))
        data: bytes = message.SerializeToString()
        seen = self._seen.setdefault(method.path, [b""])
        if len(seen) < 50 and len(data) < 10_000:
            seen.append(data)
        if kind == "mutated bytes":
            data = hostile.mutated(data, seen, rng)
        return kind, data

    def _manner(self, rng: random.Random) -> tuple[Manner, float | None]:
        dice = rng.random()
        if dice < 0.75:
            return "plain", None
        if dice < 0.85:
            return "cancelled", rng.choice((0.0, 0.001, 0.005, 0.02, 0.1))
        if dice < 0.88:
            return "gzip", None
        if dice < 0.90:
            return "silent", rng.choice((0.0, 0.05))
        if dice < 0.92:
            return "half-closed at once", None
        if dice < 0.95:
            return "many", None
        if dice < 0.98:
            return "slow reader", None
        return "left", rng.choice((0.01, 0.1))

    def _timeout(self, rng: random.Random) -> float | None:
        dice = rng.random()
        if dice < 0.85:
            return 10.0
        if dice < 0.93:
            return rng.choice((0.0, 0.0005, 0.002, 0.01, 0.05))
        return None if dice < 0.97 else rng.choice((1e5, 1e9))


def _damaged(data: bytes, rng: random.Random) -> bytes:
    """Return the bytes of a message with some bytes changed but no length: it still parses,
    mostly, and what was damaged is some text's or token's inside."""
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 4))):
        damaged[rng.randrange(len(damaged))] = rng.choice((0, 0x7F, 0xFF, rng.randrange(256)))
    return bytes(damaged)


async def made(call: Call, channels: Mapping[str, grpc.aio.Channel]) -> Outcome:
    """Make a call; returns however it ends."""
    # On the wire all four kinds of methods look alike, so this one is enough for sending
    # nothing, or too much, to any of them.
    channel: Any = channels[call.method.process]
    method = channel.stream_stream(call.method.path)
    compression = grpc.Compression.Gzip if call.manner == "gzip" else None
    outcome, began = Outcome(), time.perf_counter()
    rpc = method(metadata=call.metadata, timeout=call.timeout, compression=compression)
    sending = asyncio.create_task(_send(call, rpc))
    try:
        async with asyncio.timeout(HANG_SECONDS):
            await _receive(call, rpc, outcome)
            outcome.code = await rpc.code()
            outcome.details = await rpc.details() or ""
            outcome.reason = _reason(await rpc.trailing_metadata() or ())
    except TimeoutError:
        outcome.hung = True
    finally:
        rpc.cancel()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    outcome.seconds = time.perf_counter() - began
    return outcome


async def _send(call: Call, rpc: Any) -> None:
    if call.manner == "silent":
        return
    for payload in call.payloads:
        await rpc.write(payload)
    await rpc.done_writing()


async def _receive(call: Call, rpc: Any, outcome: Outcome) -> None:
    async def read() -> None:
        kind = GetMessageClass(call.method.descriptor.output_type)
        while (data := await rpc.read()) is not _EOF:
            outcome.responses += 1
            if len(outcome.messages) < 3:
                outcome.messages.append(kind.FromString(data))
            if call.manner == "slow reader":
                await asyncio.sleep(0.02)
            elif call.manner == "left":
                await asyncio.sleep(call.cancel_after or 0)
                rpc.cancel()

    try:
        async with asyncio.timeout(call.cancel_after if call.manner != "left" else None):
            await read()
    except TimeoutError:
        rpc.cancel()
    except (grpc.aio.AioRpcError, asyncio.CancelledError):
        # A call that was cancelled says so by the latter; its code is asked for next.
        if (task := asyncio.current_task()) and task.cancelling():
            raise


def _reason(trailers: Any) -> str | None:
    for key, value in cast(tuple[tuple[str, bytes], ...], trailers):
        if key == DETAILS_KEY:
            info = error_details_pb2.ErrorInfo()
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Is(info.DESCRIPTOR):
                    detail.Unpack(info)
                    return info.reason if info.domain == DOMAIN else None
    return None
