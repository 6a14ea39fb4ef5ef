"""A second replica of a service of a stack, beside the stack's own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from quintet_local.service import Service
from quintet_local.settings import LocalSettings
from support.stack import TestStack


@asynccontextmanager
async def second_gateway(
    stack: TestStack, *, path: str = "", **settings: str
) -> AsyncIterator[str]:
    """Yield the address of a gateway with the services, and the Redis, of `stack`.

    `settings` are of its environment, without the prefix. Its code is looked for in `path` first.
    """
    async with running(gateway_beside(stack, path=path, **settings)) as address:
        yield address


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[str]:
    """Start a service, yield its address, and end it."""
    try:
        child = await service.start()
        try:
            yield service.address
        finally:
            await service.stop(child)
    finally:
        service.close()


def gateway_beside(stack: TestStack, *, path: str = "", **settings: str) -> Service:
    """Return a gateway with the services, and the Redis, of `stack`; to be closed."""
    addresses = {
        f"{name.upper()}_ADDRESS": stack.endpoints[name]["grpc"]
        for name in ("tokenizer", "embedder", "retriever", "generator")
    }
    return service_beside(stack, "gateway", path=path, **{**addresses, **settings})


def service_beside(stack: TestStack, name: str, *, path: str = "", **settings: str) -> Service:
    """Return a service with the Redis of `stack`; to be closed."""
    environment = dict(os.environ)
    if path:
        environment["PYTHONPATH"] = path
    prefix = f"QUINTET_{name.upper()}_"
    environment[f"{prefix}CACHE__REDIS_URL"] = redis_url(stack)
    environment |= {prefix + key: value for key, value in settings.items()}
    return Service(
        name,
        environment,
        log_file=stack.state_dir / f"second-{name}-{os.getpid()}.log",
        settings=LocalSettings(),
    )


def database_variables(stack: TestStack, service: str) -> dict[str, str]:
    """Return the environment by which another replica of a service works on the stack's
    database."""
    endpoint = stack.endpoints["postgres"]
    file = Path(endpoint["password_file"])
    passwords = {"": file, f"_{service}": file.with_name(f"password-{service}")}
    own, theirs = (
        endpoint["dsn"].replace("quintet@", f"quintet{suffix}:{it.read_text().strip()}@")
        for suffix, it in passwords.items()
    )
    prefix = f"QUINTET_{service.upper()}"
    return {f"{prefix}_DATABASE_URL": theirs, f"{prefix}_OWNER_DATABASE_URL": own}


def redis_url(stack: TestStack) -> str:
    """Return the URL of the stack's Redis, with its password."""
    endpoint = stack.endpoints["valkey"]
    password = Path(endpoint["password_file"]).read_text(encoding="ascii").strip()
    return endpoint["url"].replace("redis://", f"redis://:{password}@")
