"""What it costs a kept answer that its caller is known, limited, and has a budget."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from bench.calls import p50_milliseconds
from bench.figures import Figure, exceeding
from bench.run import Run
from quintet.cache.v1 import cache_service_pb2 as cache_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from quintet_local.service import Service
from quintet_local.settings import LocalSettings
from quintet_local.supervisor import OPEN, SERVICES, Stack

COLLECTION = "admission"
MOST_MILLISECONDS = 0.3
MANY = 10**9
POLICY = {
    scope: {
        "requests": [{"limit": MANY, "seconds": 1}, {"limit": MANY, "seconds": 86_400}],
        "tokens": [{"limit": MANY, "seconds": 60}],
    }
    for scope in ("everybody", "tenant", "key")
} | {"budget": {"day": MANY, "month": MANY}}
"""All that there is: six limits of requests, three of tokens, two budgets."""


async def bench(run: Run) -> list[Figure]:
    """Measure a kept answer's milliseconds with admission and without."""
    async with run.cached_stack() as stack:
        async with grpc.aio.insecure_channel(stack.gateway) as channel:
            await _fill(GatewayServiceStub(channel))
        key = (stack.state_dir / "api-key").read_text(encoding="ascii").strip()
        admitting = {
            "ACCESS__MODE": "keys",
            "ACCESS__KEY_FILE": str(stack.state_dir / "api-key"),
            "SIGNING__KEY": str(stack.state_dir / "identity.key"),
            "LIMITS__POLICY": json.dumps(POLICY),
        }
        async with (
            _gateway(run, stack, "admitting", admitting) as ours,
            _gateway(run, stack, "open", {}) as theirs,
        ):
            times = await run.interleaved(
                {
                    "admission": lambda: _hits(run, ours, f"Bearer {key}"),
                    "open": lambda: _hits(run, theirs, ""),
                }
            )
    return [
        exceeding(
            "admission: p50 of a kept answer with key, limits and budgets",
            "ms",
            times["admission"],
            "the same gateway without any",
            times["open"],
            at_most=MOST_MILLISECONDS,
        )
    ]


async def _fill(stub: Any) -> None:
    await stub.CreateCollection(pb.CreateCollectionRequest(name=COLLECTION))
    document = pb.Document(id="bees", content="Bees make honey. Honey is sweet.")
    request = pb.IngestRequest(collection=COLLECTION, document=document)
    [acknowledged] = [it async for it in stub.Ingest(iter([request]))]
    assert acknowledged.HasField("ingested"), acknowledged


async def _hits(run: Run, address: str, authorization: str) -> float:
    """Return the median of a kept answer's milliseconds."""
    request = pb.AskRequest(collection=COLLECTION, question="What do bees make?", abstain_below=0)
    metadata = (("authorization", authorization),) if authorization else ()
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = GatewayServiceStub(channel)
        await stub.Ask(request, metadata=metadata)
        kept = await stub.Ask(request, metadata=metadata)
        assert kept.cache.use.outcome == cache_pb.CACHE_OUTCOME_HIT, kept.cache
        return await p50_milliseconds(
            lambda: stub.Ask(request, metadata=metadata), run.size(1_000, 50)
        )


@asynccontextmanager
async def _gateway(
    run: Run, stack: Stack, name: str, settings: dict[str, str]
) -> AsyncIterator[str]:
    """Run a gateway over the stack's services, database and Redis; yield its address."""
    addresses = {
        f"{service.upper()}_ADDRESS": stack.endpoints[service]["grpc"] for service in SERVICES[:-1]
    }
    postgres, redis = stack.endpoints["postgres"], stack.endpoints["valkey"]
    owner = Path(postgres["password_file"])
    environment = addresses | {
        "DATABASE_URL": _with_password(
            postgres["dsn"], "quintet@", "quintet_gateway", owner.with_name("password-gateway")
        ),
        "OWNER_DATABASE_URL": _with_password(postgres["dsn"], "quintet@", "quintet", owner),
        "CACHE__REDIS_URL": _with_password(
            redis["url"].replace("//", "//@"), "@", "", Path(redis["password_file"])
        ),
        "USAGE__FOLDER": str(run.folder / f"usage-{name}"),
    }
    service = Service(
        "gateway",
        {k: v for k, v in os.environ.items() if k != "OTEL_EXPORTER_OTLP_ENDPOINT"}
        | OPEN
        | {f"QUINTET_GATEWAY_{k}": v for k, v in (environment | settings).items()},
        log_file=run.folder / f"gateway-{name}.log",
        settings=LocalSettings(),
    )
    try:
        process = await service.start()
        try:
            yield service.address
        finally:
            await service.stop(process)
    finally:
        service.close()


def _with_password(url: str, user: str, name: str, file: Path) -> str:
    password = file.read_text(encoding="ascii").strip()
    return url.replace(user, f"{name}:{password}@", 1)
