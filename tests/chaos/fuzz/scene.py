"""What the calls are made against: a collection with documents, and what names it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from support.gateway import ingest
from support.retriever import document
from support.stack import TestStack

from chaos.fuzz.lexicon import IDS, SCRATCH, STEADY, TEXTS, Lexicon
from chaos.fuzz.methods import Method, methods_of
from chaos.fuzz.vitals import SERVICES
from quintet.embedder.v1 import embedder_service_pb2 as embedder_pb
from quintet.embedder.v1.embedder_service_pb2_grpc import EmbedderServiceStub
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1 import key_service_pb2 as key_pb
from quintet.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from quintet.gateway.v1.key_service_pb2_grpc import KeyServiceStub
from quintet.generator.v1 import generator_service_pb2 as generator_pb
from quintet.generator.v1.generator_service_pb2_grpc import GeneratorServiceStub
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb

LANGUAGE_MODEL = "smollm2-135m-instruct"
_OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
    # What is refused is to be seen, not tried again.
    ("grpc.enable_retries", 0),
]
_GOOD = pb.Document(id="good", content="Otters hold hands while they sleep. Otters eat crabs.")
_KEYS = 40
"""To be exchanged and revoked, each once."""
_QUESTION = "What do otters hold while they sleep?"


@dataclass(frozen=True)
class Scene:
    """Whom to call, with which RPCs, in which words."""

    channels: Mapping[str, grpc.aio.Channel]
    methods: list[Method]
    words: Lexicon

    async def is_well(self) -> str:
        """Bring in a document and ask about it; return what is wrong, or nothing."""
        stub: Any = GatewayServiceStub(self.channels["gateway"])
        try:
            (acknowledged,) = await ingest(stub, STEADY, [_GOOD])
            request = pb.AskRequest(
                collection=STEADY, question=_QUESTION, cache=pb.CACHE_POLICY_NONE
            )
            answer = await stub.Ask(request, timeout=10)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        if not acknowledged.HasField("ingested"):
            return str(acknowledged)
        if answer.degradations or "hands" not in answer.answer:
            return f"{answer.answer!r}, {answer.degradations}"
        return ""


@asynccontextmanager
async def scene_of(stack: TestStack) -> AsyncIterator[Scene]:
    """Yield the scene; what was made in it is deleted after."""
    channels = {
        name: grpc.aio.insecure_channel(stack.endpoints[name]["grpc"], options=_OPTIONS)
        for name in SERVICES
    }
    gateway: Any = GatewayServiceStub(channels["gateway"])
    try:
        words = Lexicon()
        methods = await methods_of(channels)
        await _prepare(gateway, channels, words)
        yield Scene(channels, methods, words)
        for each in (await gateway.ListCollections(pb.ListCollectionsRequest())).collections:
            if each.name.startswith("fuzz-"):
                await gateway.DeleteCollection(pb.DeleteCollectionRequest(name=each.name))
    finally:
        for channel in channels.values():
            await channel.close(None)


async def _prepare(gateway: Any, channels: Mapping[str, grpc.aio.Channel], words: Lexicon) -> None:
    created = await gateway.CreateCollection(pb.CreateCollectionRequest(name=STEADY))
    documents = [
        pb.Document(id=identifier, title=f"Text {number}", content=TEXTS[number % 5])
        for number, identifier in enumerate(IDS)
    ]
    for number, it in enumerate(documents):
        it.metadata.update({"year": 2020 + number, "language": "en", "tags": {"kind": "insects"}})
    await ingest(gateway, STEADY, documents)
    embedder: Any = EmbedderServiceStub(channels["embedder"])
    embedded = await embedder.Embed(embedder_pb.EmbedRequest(texts=TEXTS))
    vectors = [it.vector for it in embedded.embeddings]
    words.add("vector", *vectors, often=0.8)
    words.add("embedding_model", embedded.model, often=0.9)
    words.add("embedding_revision", embedded.revision, often=0.9)
    # Rarely: each of its calls takes seconds.
    words.add("model", LANGUAGE_MODEL, often=0.01)
    words.learn(created)
    # It is loaded when it is first asked, which few calls do.
    generator: Any = GeneratorServiceStub(channels["generator"])
    await generator.Generate(
        generator_pb.GenerateRequest(
            model=LANGUAGE_MODEL,
            question=_QUESTION,
            passages=[generator_pb.Passage(text=_GOOD.content)],
            max_tokens=1,
        )
    )

    def chunked(rng: random.Random) -> retriever_pb.DocumentInput:
        texts = rng.choices(TEXTS, k=rng.randint(1, 4))
        made = document(rng.choice(IDS), texts, year=2024)
        for chunk in made.chunks:
            chunk.vector = rng.choice(vectors)
        return made

    def consistency(rng: random.Random) -> retriever_pb.Consistency:
        token = words.learned("at_least_as_fresh", rng)
        return rng.choice(
            (
                retriever_pb.Consistency(minimize_latency=True),
                retriever_pb.Consistency(fully_consistent=True),
                retriever_pb.Consistency(at_least_as_fresh=token),
            )
        )

    def switched(rng: random.Random) -> retriever_pb.SwitchCollectionsRequest:
        name, other = rng.sample(SCRATCH, 2)
        return retriever_pb.SwitchCollectionsRequest(
            name=name, other=other, consistency_token=words.token(name)
        )

    keys: Any = KeyServiceStub(channels["gateway"])
    for number in range(_KEYS):
        made = await keys.CreateKey(
            key_pb.CreateKeyRequest(name=f"fuzz-{number}", scope=key_pb.KEY_SCOPE_READ)
        )
        words.learned_now("key_id", made.key.id)

    words.templates |= {
        retriever_pb.SwitchCollectionsRequest.DESCRIPTOR.full_name: switched,
        retriever_pb.DocumentInput.DESCRIPTOR.full_name: chunked,
        retriever_pb.Filter.DESCRIPTOR.full_name: _filter,
        retriever_pb.Consistency.DESCRIPTOR.full_name: consistency,
    }


def _filter(rng: random.Random) -> retriever_pb.Filter:
    made = retriever_pb.Filter()
    match rng.randrange(6):
        case 0:
            made.equals.key, made.equals.value.string_value = "tags.kind", "insects"
        case 1:
            made.one_of.key = "year"
            made.one_of.values.add().number_value = 2024
        case 2:
            made.range.key = "year"
            made.range.gte.number_value, made.range.lt.number_value = 2021, 2030
        case 3:
            made.exists.key = rng.choice(("language", "none"))
        case 4:
            made.any_of.filters.extend(_filter(rng) for _ in range(2))
        case _:
            made.negated.CopyFrom(_filter(rng))
    return made
