"""What is asked of a real Prometheus that scrapes a real run: every panel, and the alerts."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import grpc
import psycopg
import pytest
from support.gateway import gateway_stub, new_collection
from support.prometheus import (
    PROMTOOL,
    Monitoring,
    fetched,
    monitoring,
    needs_prometheus,
    needs_promtool,
    until,
)
from support.stack import TestStack

from deploy.observability.metric_table import metrics
from quintet.gateway.v1 import gateway_service_pb2 as pb

SERVICES = ("tokenizer", "embedder", "retriever", "generator", "gateway")
DASHBOARDS = Path(__file__).parents[2] / "deploy" / "observability" / "dashboards"
RUNBOOK = Path(__file__).parents[2] / "docs" / "runbook.md"
BEES = pb.Document(id="bees", content="Bees make honey in summer. Honey is sweet.")
MOST_SERIES = 5_000
"""Of one service: some 50 methods with 16 buckets each, as server and as client, and the rest."""
SCRAPED_SECONDS = 20
"""Within which what was just done has been scraped, and rules evaluated."""
HOSTILE = 100
"""Calls with values that nobody has seen, of each kind."""


def panels() -> dict[str, list[str]]:
    """Return the expressions of each panel, by dashboard and title."""
    found: dict[str, list[str]] = {}
    for path in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for each in (panel, *panel.get("panels", [])):
                if each["type"] != "row":
                    key = f"{path.stem}: {each['title']}"
                    found.setdefault(key, []).extend(it["expr"] for it in each["targets"])
    return found


async def questions(gateway: str) -> None:
    """Ingest, ask, ask again, search, and do what fails."""
    async with gateway_stub(gateway) as stub, new_collection(stub, [BEES]) as name:
        for _ in range(2):
            await stub.Ask(pb.AskRequest(collection=name, question="What do bees make?"))
        asked = pb.AskRequest(collection=name, question="When do bees make honey?")
        assert [event async for event in stub.AskStream(asked)]
        await stub.Search(pb.SearchRequest(collection=name, query="honey"))
        for wrong in (pb.AskRequest(collection="none", question="Why?"), pb.AskRequest()):
            with suppress(grpc.aio.AioRpcError):
                await stub.Ask(wrong)


@pytest.fixture(scope="module")
def watched(stack: TestStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitoring]:
    """Prometheus and Alertmanager beside the stack, of which questions have been asked."""
    targets = {it: urlparse(stack.endpoints[it]["metrics"]).netloc for it in SERVICES}
    asyncio.run(questions(stack.gateway))  # so that no counter begins with its first scrape
    with monitoring(tmp_path_factory.mktemp("monitoring"), targets) as it:
        yield it


@needs_prometheus
async def test_a_service_that_is_broken_makes_alerts_arrive_and_every_panel_has_data(
    stack: TestStack, watched: Monitoring
) -> None:
    async with gateway_stub(stack.gateway) as stub, new_collection(stub, [BEES]) as name:
        asking = asyncio.create_task(keep_asking(stub, name))
        wanted = {"QuintetServiceDown", "QuintetBreakerOpen"}
        # It needs no model, so it is back soon. What is served for it is an estimate.
        await asyncio.to_thread(stack.stop, "tokenizer")
        try:
            await asyncio.to_thread(
                until, lambda: wanted <= watched.arrived().keys(), f"{wanted} arrive"
            )
            arrived = watched.arrived()
        finally:
            await asyncio.to_thread(stack.start, "tokenizer")
        assert arrived["QuintetServiceDown"]["labels"]["job"] == "tokenizer"
        assert arrived["QuintetBreakerOpen"]["labels"]["breaker"] == "tokenizer"
        runbook = arrived["QuintetServiceDown"]["annotations"]["runbook_url"]
        assert runbook == "docs/runbook.md#quintetservicedown"
        await asyncio.to_thread(
            until, lambda: not wanted & watched.arrived().keys(), "they end with their cause"
        )
        asking.cancel()
        await asyncio.wait([asking])

    await questions(stack.gateway)
    empty = without_data(watched)
    with suppress(TimeoutError):
        async with asyncio.timeout(SCRAPED_SECONDS):
            while empty:
                await asyncio.sleep(0.5)
                empty = await asyncio.to_thread(without_data, watched)
    assert empty == []


async def keep_asking(stub: Any, collection: str) -> None:
    """Ask what was never asked, until cancelled."""
    while True:
        question = f"What do bees make on day {secrets.token_hex(4)}?"
        with suppress(grpc.aio.AioRpcError):
            await stub.Ask(pb.AskRequest(collection=collection, question=question))
        await asyncio.sleep(0.1)


def without_data(watched: Monitoring) -> list[str]:
    """Return the panels of which an expression has no number."""
    return [
        f"{title}: {expression}"
        for title, expressions in panels().items()
        for expression in expressions
        if not any(
            it["value"][1] != "NaN"
            for it in watched.query(expression.replace("$__rate_interval", "1m"))
        )
    ]


@needs_prometheus
async def test_exemplars_of_answers_lead_to_their_traces(
    stack: TestStack, watched: Monitoring
) -> None:
    async with gateway_stub(stack.gateway) as stub, new_collection(stub, [BEES]) as name:
        answer = await stub.Ask(pb.AskRequest(collection=name, question="Who makes honey?"))
    histogram = 'grpc_server_handling_seconds_bucket{job="gateway", grpc_method="Ask"}'
    wanted = {"trace_id": answer.trail.trace_id}

    def kept() -> bool:
        return wanted in [it["labels"] for it in watched.exemplars(histogram)]

    await asyncio.to_thread(until, kept, "Prometheus keeps the exemplar")


@needs_prometheus
def test_prometheus_understands_every_query_of_the_runbook(watched: Monitoring) -> None:
    queries = re.findall(r"^\$ promql '(.+)'$", RUNBOOK.read_text(), re.M)
    assert len(queries) > 20
    for query in queries:
        watched.query(query)


async def test_what_the_runbook_looks_for_in_the_database_is_there(stack: TestStack) -> None:
    statements = re.findall(r"""^\$ db (["'])(.+)\1$""", RUNBOOK.read_text(), re.M)
    assert len(statements) >= 5
    async with await psycopg.AsyncConnection.connect(stack.database_url) as connection:
        for _, statement in statements:
            await (await connection.execute(statement.encode())).fetchall()


def test_what_the_runbook_looks_for_in_logs_is_logged() -> None:
    text = RUNBOOK.read_text()
    assert not re.search(r"^\$ k logs deployment/", text, re.M), "that is of one replica alone"
    searched = re.compile(r"""^\$ logs \w+ \d+m \| grep (?:-E )?'?([^'\n]+?)'? \|""", re.M)
    patterns = searched.findall(text)
    assert len(patterns) > 8
    event = re.compile(r"""\.(?:info|warning|error)\)?\(\s*"([^"]+)\"""")
    root = RUNBOOK.parents[1]
    sources = [it for it in root.rglob("quintet_*/**/*.py") if ".venv" not in it.parts]
    events = {name for it in sources for name in event.findall(it.read_text())}
    for pattern in patterns:
        named = re.fullmatch(r'"event": "(\w+)"', pattern)
        if named:
            assert named[1] in events
        elif '"' not in pattern:  # the others are fields, with their values
            for word in pattern.split("|"):
                assert any(word in name for name in events), word


@needs_promtool
@pytest.mark.parametrize("service", SERVICES)
def test_promtool_finds_nothing_to_say_of_a_real_scrape(stack: TestStack, service: str) -> None:
    assert PROMTOOL is not None
    text = fetched(stack.endpoints[service]["metrics"])
    checked = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=text, text=True, capture_output=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_every_metric_that_is_served_is_in_the_table(stack: TestStack, service: str) -> None:
    known = {it.name for it in metrics()}
    text = fetched(stack.endpoints[service]["metrics"])
    served = {it.split()[2] for it in text.splitlines() if it.startswith("# TYPE ")}
    assert {it for it in served - known if not it.startswith(("python_", "process_"))} == set()


async def test_what_callers_make_up_makes_no_series(stack: TestStack) -> None:
    marker = f"x{secrets.token_hex(4)}"
    await questions(stack.gateway)
    await make_up(stack, [f"{marker}-once"])
    before = {service: series(stack, service) for service in SERVICES}
    await make_up(stack, [f"{marker}-{number}" for number in range(HOSTILE)])
    for service in SERVICES:
        after = series(stack, service)
        assert not any(marker in it for it in after)
        # What else the stack does meanwhile, such as to renew what is kept, may be its first.
        assert len(after - before[service]) < HOSTILE / 2, service
        assert len(after) < MOST_SERIES, service


def series(stack: TestStack, service: str) -> set[str]:
    """Return the names and labels of the series that a service serves."""
    lines = fetched(stack.endpoints[service]["metrics"]).splitlines()
    return {it.rsplit(maxsplit=1)[0] for it in lines if not it.startswith("#")}


async def make_up(stack: TestStack, made_up: Sequence[str]) -> None:
    """Put each of these values wherever a caller can name something."""
    async with gateway_stub(stack.gateway) as stub, new_collection(stub, [BEES]) as name:
        for service in SERVICES:
            await hostile_methods(stack.endpoints[service]["grpc"], service, made_up)
        for value in made_up:
            metadata = (("quintet-tenant", value), ("user-agent", value), ("traceparent", value))
            for request in (
                pb.AskRequest(collection=value, question=value),
                pb.AskRequest(collection=name, question=value, model=value),
                pb.AskRequest(collection=name, question=value, template=value),
            ):
                with pytest.raises(grpc.aio.AioRpcError):
                    await stub.Ask(request, metadata=metadata)
        for value in made_up[:3]:
            async with new_collection(stub, [pb.Document(id=value, content=value)]):
                pass


async def hostile_methods(address: str, service: str, made_up: Sequence[str]) -> None:
    """Call methods and services that do not exist, and one that does for a made-up model."""
    real = f"quintet.{service}.v1.{service.capitalize()}Service"
    async with grpc.aio.insecure_channel(address) as channel:
        for value in made_up:
            for method in (f"/{real}/{value}", f"/{value}/{value}", f"/{real}/ListModels"):
                with suppress(grpc.aio.AioRpcError):
                    await channel.unary_unary(method, bytes, bytes)(
                        b"", metadata=(("authorization", value),)
                    )


async def test_log_lines_tell_of_a_call_what_it_took_and_nothing_that_was_said(
    stack: TestStack,
) -> None:
    canary = f"canary{secrets.token_hex(8)}"
    document = pb.Document(id="d", title=canary, content=f"The {canary} sings in summer.")
    async with gateway_stub(stack.gateway) as stub, new_collection(stub, [document]) as name:
        asked = pb.AskRequest(collection=name, question=f"When does the {canary} sing?")
        answer = await stub.Ask(asked)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Ask(asked, metadata=(("authorization", f"Bearer {canary}"),))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    of_call: list[dict[str, Any]] = []
    for service in SERVICES:
        text = (stack.state_dir / "logs" / f"{service}.log").read_text()
        assert canary not in text, service
        lines = (json.loads(it) for it in text.splitlines() if it.startswith("{"))
        of_call += [it for it in lines if it.get("trace_id") == answer.trail.trace_id]
    (line,) = [it for it in of_call if it.get("method", "").endswith("/Ask")]
    assert line.items() >= {"event": "call", "code": "OK", "tenant": "default"}.items()
    assert line["tiers"]["l1"] == "miss"
    assert {"l1", "l2", "l3"} <= line["tiers"].keys()
    assert {it["service"] for it in of_call} == set(SERVICES)
