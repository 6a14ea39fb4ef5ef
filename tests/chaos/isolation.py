"""Nothing that one tenant sends shows, or changes, what another has.

The attacker knows more than anybody could guess: every name, id, token, state, page, key and
vector of the victim's, from its own requests and responses. It sends them through all RPCs of
the gateway and the retriever, in whatever field fits, some changed, while the victim goes on.
Each has a word of its own in all that it stores; in no byte of a response may the other's be.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from support import tenants
from support.retriever import document
from support.stack import TestStack

from chaos.fuzz.composing import composed
from chaos.fuzz.lexicon import LEARNED, Lexicon
from chaos.fuzz.methods import Method, methods_of
from chaos.report import Check
from chaos.suite import BrokenError, Options, Suite, Tell, own_stack
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from quintet.gateway.v1.link_service_pb2_grpc import LinkServiceStub
from quintet.retriever.v1 import link_service_pb2 as retriever_link_pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet.retriever.v1.retriever_service_pb2_grpc import RetrieverServiceStub

VICTIM, ATTACKER = "ants", "bees"
CANARIES = {VICTIM: "zanthorpe", ATTACKER: "quillbrook"}
PROCESSES = ("gateway", "retriever")
SHARED, OWN = "notes", "diary"
"""Collections: both have one of the first name, the victim alone one of the second."""
_IDS = ("one", "two", "three")
_QUESTION = "What grows in the garden of the house?"
_READING = ("Get", "List", "Search", "Ask", "Explain", "Related", "Suggest", "Expand")
_CRAFTED = (
    "' OR tenant = 'ants' --", "ants", "default", "*", "%", "ants:notes", "notes:ants", "../notes",
    "'; SET quintet.tenant = 'ants'; SELECT '", "l1:1:ants:", "$1", "{}", "",
)  # fmt: skip
_AT_ONCE = 6
_SECONDS = 10.0


class Loot(Lexicon):
    """What the attacker knows, by the names of fields."""

    def __init__(self) -> None:
        super().__init__()
        self._loot: dict[str, list[Any]] = {}
        self._texts: list[str] = []
        self.templates[retriever_pb.DocumentInput.DESCRIPTOR.full_name] = self._document

    def _document(self, rng: random.Random) -> Message:
        made = document(rng.choice(_IDS), ["Nothing of anybody's."], kind=rng.choice(_CRAFTED))
        for chunk in made.chunks:
            chunk.vector = rng.choice(self._loot.get("vector") or [b""])
        return made

    def take(self, message: Message) -> None:
        """Take all that is said in one of the victim's messages, but for its word: what the
        attacker sends comes back to it."""
        for descriptor, value in message.ListFields():
            for each in value if descriptor.is_repeated else (value,):
                if isinstance(each, Message):
                    self.take(each)
                elif isinstance(each, str | bytes) and each:
                    self._keep(descriptor.name, each)

    def _keep(self, name: str, value: str | bytes) -> None:
        raw = value.encode() if isinstance(value, str) else value
        if CANARIES[VICTIM].encode() in raw.lower():
            return
        for each in (name, LEARNED.get(name)):
            if each and value not in self._loot.setdefault(each, []):
                self._loot[each].append(value)
        if isinstance(value, str) and len(value) < 300 and value not in self._texts:
            self._texts.append(value)

    def value(self, descriptor: FieldDescriptor, rng: random.Random) -> Any:
        """Return something of the victim's for a field."""
        is_text = descriptor.type == FieldDescriptor.TYPE_STRING
        if descriptor.name == "model":
            return "extractive"
        if is_text and rng.random() < 0.04:
            return rng.choice(_CRAFTED)
        if descriptor.name in ("collection", "name") and rng.random() < 0.9:
            return rng.choice((SHARED, SHARED, OWN))
        known = self._loot.get(descriptor.name)
        if known and rng.random() < 0.85:
            found = rng.choice(known)
            if isinstance(found, str) is is_text:
                return _changed(found, rng) if rng.random() < 0.1 else found
        if is_text and self._texts and rng.random() < 0.1:
            return rng.choice(self._texts)
        return super().value(descriptor, rng)


def _changed(value: Any, rng: random.Random) -> Any:
    if isinstance(value, str):
        place = rng.randrange(len(value))
        return value[:place] + rng.choice("aA0_=") + value[place + 1 :]
    changed = bytearray(value)
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


@dataclass
class Journal:
    """What happened so far."""

    attempts: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    answered: int = 0
    """Of the victim's questions meanwhile."""
    changed: list[str] = field(default_factory=list)


class Caller:
    """One tenant, at every RPC."""

    def __init__(
        self,
        tenant: str,
        channels: Mapping[str, grpc.aio.Channel],
        metadata: Mapping[str, tuple[str, str]],
    ) -> None:
        self.tenant = tenant
        self.canary = CANARIES[tenant].encode()
        self._foreign = [it.encode() for name, it in CANARIES.items() if name != tenant]
        self._channels = channels
        self._metadata = metadata
        self.loot: Loot | None = None

    async def call(self, method: Method, requests: Sequence[Message]) -> tuple[str, list[bytes]]:
        """Make a call; return its code and the responses. Raises `BrokenError` when another
        tenant's word is in what comes back."""
        channel: Any = self._channels[method.process]
        rpc = channel.stream_stream(method.path)(
            metadata=[self._metadata[method.process]], timeout=_SECONDS
        )
        received: list[bytes] = []
        try:
            for request in requests:
                await rpc.write(request.SerializeToString())
            await rpc.done_writing()
            async for raw in rpc:
                received.append(raw)  # noqa: PERF401 - what came before a failure too
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # Its code is asked for next.
        code, details = await rpc.code(), await rpc.details()
        trailers = await rpc.trailing_metadata()
        told = b"".join([*received, str(details).encode(), str(trailers).encode()]).lower()
        for foreign in self._foreign:
            if foreign in told:
                sent = "\n".join(str(it) for it in requests)
                raise BrokenError(f"{method.path} showed {self.tenant} {foreign!r}\n{sent:.2000}")
        if self.loot is not None:
            kind = GetMessageClass(method.descriptor.output_type)
            for message in (*requests, *(kind.FromString(raw) for raw in received)):
                self.loot.take(message)
        return code.name, received


@dataclass
class Scene:
    """The two tenants, the RPCs, and what the victim has."""

    victim: Caller
    attacker: Caller
    methods: list[Method]
    loot: Loot
    stubs: Mapping[str, tuple[Any, Any, Any]]
    metadata: Mapping[str, Mapping[str, tuple[str, str]]]

    def method(self, path: str) -> Method:
        """Return the RPC whose path ends so."""
        return next(it for it in self.methods if it.path.endswith(path))

    async def prepare(self, tenant: str, names: Sequence[str]) -> None:
        """Let a tenant have those collections, with documents and a link."""
        gateway, links, _ = self.stubs[tenant]
        metadata = [self.metadata[tenant]["gateway"]]
        word = CANARIES[tenant]
        for name in names:
            created = pb.CreateCollectionRequest(name=name, description=f"{word} of {tenant}")
            await gateway.CreateCollection(created, metadata=metadata)
            documents = [
                pb.Document(
                    id=identifier,
                    title=f"{word} {identifier}",
                    content=f"In the garden of the house grows {word}, number {identifier}."
                    f" See [[{_IDS[0]}]] for more {word}.",
                )
                for identifier in _IDS
            ]
            for it in documents:
                it.metadata.update({"kind": word})
            requests = [pb.IngestRequest(collection=name, document=it) for it in documents]
            async for _ in gateway.Ingest(iter(requests), metadata=metadata):
                pass
            link = retriever_link_pb.CreateLinkRequest(
                collection=name, source_id=_IDS[1], target_id=_IDS[2], note=word
            )
            await links.CreateLink(link, metadata=metadata)

    async def state(self) -> str:
        """Return all that the victim has, as its own calls tell it."""
        _, _, retriever = self.stubs[VICTIM]
        metadata = [self.metadata[VICTIM]["retriever"]]
        seen = []
        for name in (SHARED, OWN):
            request = retriever_pb.GetCollectionRequest(name=name)
            found = await retriever.GetCollection(request, metadata=metadata)
            # The token names the epoch: not one write more.
            seen.append(str(found))
            for identifier in _IDS:
                wanted = retriever_pb.GetDocumentRequest(
                    collection=name, id=identifier, include_content=True
                )
                seen.append(str(await retriever.GetDocument(wanted, metadata=metadata)))
        return "\n".join(seen)

    async def attempt(self, caller: Caller, method: Method, rng: random.Random) -> str:
        """Let a caller make one call of what is known of the victim; return its code."""
        count = rng.randint(1, 3) if method.descriptor.client_streaming else 1
        requests = [composed(method.request, self.loot, rng, 0.0) for _ in range(count)]
        code, _ = await caller.call(method, requests)
        return code

    async def forget(self) -> None:
        """Delete what was made."""
        for tenant, (gateway, _, _) in self.stubs.items():
            metadata = [self.metadata[tenant]["gateway"]]
            listed = await gateway.ListCollections(pb.ListCollectionsRequest(), metadata=metadata)
            for it in listed.collections:
                gone = pb.DeleteCollectionRequest(name=it.name)
                await gateway.DeleteCollection(gone, metadata=metadata)


@asynccontextmanager
async def scene_of(stack: TestStack) -> AsyncIterator[Scene]:
    """Yield the scene; what was made in it is deleted after."""
    async with AsyncExitStack() as resources:
        channels = {
            name: await resources.enter_async_context(
                grpc.aio.insecure_channel(stack.endpoints[name]["grpc"])
            )
            for name in PROCESSES
        }
        metadata = {it: tenants.metadata(stack.state_dir, it) for it in CANARIES}
        callers = {it: Caller(it, channels, metadata[it]) for it in CANARIES}
        stubs = {
            it: (
                GatewayServiceStub(channels["gateway"]),
                LinkServiceStub(channels["gateway"]),
                RetrieverServiceStub(channels["retriever"]),
            )
            for it in CANARIES
        }
        methods = await methods_of(channels)
        loot = Loot()
        scene = Scene(callers[VICTIM], callers[ATTACKER], methods, loot, stubs, metadata)
        await scene.prepare(VICTIM, (SHARED, OWN))
        await scene.prepare(ATTACKER, (SHARED,))
        scene.victim.loot = loot
        yield scene
        await scene.forget()


async def run(stack: TestStack, amount: int, seed: int, tell: Tell = lambda *_: None) -> Journal:
    """Make so many attempts and return what happened. Raises `BrokenError`."""
    journal, rng = Journal(), random.Random(seed)
    async with scene_of(stack) as scene:
        ask = pb.AskRequest(collection=SHARED, question=_QUESTION, model="extractive", passages=3)
        # What the victim does, from which all is taken that it sends and gets.
        await scene.victim.call(scene.method("GatewayService/Ask"), [ask])
        reading = [it for it in scene.methods if it.descriptor.name.startswith(_READING)]
        for method in reading * 4:
            await scene.attempt(scene.victim, method, rng)
        before = await scene.state()
        numbers = iter(range(amount))

        async def work() -> None:
            for number in numbers:
                if number % 50 == 49:
                    with suppress(grpc.aio.AioRpcError):  # it has made something else of it
                        await scene.prepare(ATTACKER, (SHARED,))
                if number % 20 == 19:
                    code, _ = await scene.victim.call(scene.method("GatewayService/Ask"), [ask])
                    journal.answered += code == "OK"
                method = scene.methods[number % len(scene.methods)]
                code = await scene.attempt(scene.attacker, method, rng)
                journal.attempts[method.path] += 1
                journal.codes[code] += 1
                if number % 100 == 0:
                    tell(number, f"{journal.codes['OK']} ended well, and showed nothing")

        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(work())
        after = await scene.state()
        pairs = zip(before.split("\n"), after.split("\n"), strict=False)
        journal.changed = [f"{one} is {other}" for one, other in pairs if one != other]
    return journal


def checks(journal: Journal) -> list[Check]:
    """Return what is required of a run in which nothing was shown, and how much was tried."""
    done = sum(journal.attempts.values())
    asked = done // 20
    changed = len(journal.changed)
    return [
        Check("attempts, none of which showed the other's word", done),
        Check("RPCs that were tried", len(journal.attempts)),
        Check("attempts that ended well, on what is the attacker's own", journal.codes["OK"]),
        *(Check(f"ended as {it}", journal.codes[it]) for it in sorted(journal.codes)),
        Check("lines of the victim's data that changed", changed, "0", changed == 0),
        Check(
            "the victim's questions answered meanwhile",
            journal.answered,
            f"at least {asked}",
            journal.answered >= asked,
        ),
    ]


def _run_alone(options: Options, tell: Tell) -> list[Check]:
    with own_stack() as stack:
        return checks(asyncio.run(run(stack, options.amount, options.seed, tell)))


SUITE = Suite("isolation", 5_000, "attempts", _run_alone)
