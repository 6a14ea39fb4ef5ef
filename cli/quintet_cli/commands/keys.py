"""`quintet keys`: who may ask."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quintet.gateway.v1 import key_service_pb2 as pb
from quintet_cli.connection import connected
from quintet_cli.errors import CliError
from quintet_cli.settings import Settings
from quintet_cli.terminal import as_json, console, day, print_json, shown, table

PAGE = 200


def create(
    settings: Settings, name: str, *, scope: str, days: float | None, tenant: str, out: Path | None
) -> None:
    """Make a key; print it, or write it to `out`."""
    request = pb.CreateKeyRequest(
        name=name, scope=pb.KeyScope.Value(f"KEY_SCOPE_{scope.upper()}"), tenant=tenant
    )
    if days is not None:
        request.lifetime.FromMilliseconds(round(days * 86_400_000))
    with _made_before(out):
        response = asyncio.run(_create(settings, request))
    _hand_over(settings, response, out)


async def _create(settings: Settings, request: pb.CreateKeyRequest) -> pb.CreateKeyResponse:
    async with connected(settings) as gateway:
        return await gateway.unary("CreateKey", gateway.keys.CreateKey, request)


def rotate(
    settings: Settings, key_id: str, *, overlap_hours: float, tenant: str, out: Path | None
) -> None:
    """Make a key in the place of another; print it, or write it to `out`."""
    request = pb.RotateKeyRequest(key_id=key_id, tenant=tenant)
    request.overlap.FromMilliseconds(round(overlap_hours * 3_600_000))
    with _made_before(out):
        response = asyncio.run(_rotate(settings, request))
    _hand_over(settings, response, out)
    if not settings.json:
        console(stderr=True).print(f"{key_id} goes on working for {overlap_hours:g} hours.")


async def _rotate(settings: Settings, request: pb.RotateKeyRequest) -> pb.RotateKeyResponse:
    async with connected(settings) as gateway:
        return await gateway.unary("RotateKey", gateway.keys.RotateKey, request)


def list_all(settings: Settings, *, tenant: str) -> None:
    """Print a tenant's keys; as JSON one object a line."""
    asyncio.run(_list_all(settings, tenant))


async def _list_all(settings: Settings, tenant: str) -> None:
    rows = table("id", "name", "scope", "tenant", "created", "expires", "revoked")
    request = pb.ListKeysRequest(tenant=tenant, page_size=PAGE)
    async with connected(settings) as gateway:
        while True:
            page = await gateway.unary("ListKeys", gateway.keys.ListKeys, request)
            for key in page.keys:
                if settings.json:
                    print_json(as_json(key))
                    continue
                rows.add_row(
                    key.id,
                    shown(key.name),
                    _scope(key),
                    key.tenant,
                    day(key.created),
                    day(key.expires) if key.HasField("expires") else "",
                    day(key.revoked) if key.HasField("revoked") else "",
                )
            request.page_token = page.next_page_token
            if not request.page_token:
                break
    if not settings.json:
        nothing = "no keys; make one with: quintet keys create NAME"
        console().print(rows if rows.row_count else nothing)


def revoke(settings: Settings, key_id: str, *, tenant: str) -> None:
    """Have a key refused from now on."""
    asyncio.run(_revoke(settings, pb.RevokeKeyRequest(key_id=key_id, tenant=tenant)))


async def _revoke(settings: Settings, request: pb.RevokeKeyRequest) -> None:
    async with connected(settings) as gateway:
        response = await gateway.unary("RevokeKey", gateway.keys.RevokeKey, request)
    if settings.json:
        print_json(as_json(response.key))
    else:
        console().print(f"{response.key.id} ({shown(response.key.name)}) is refused from now on.")


@contextmanager
def _made_before(out: Path | None) -> Iterator[None]:
    """Make the file before the key: one that could not be written would be lost."""
    if out is None:
        yield
        return
    try:
        out.touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        raise CliError(f"{out} is there already", advice="name a new file", usage=True) from None
    except OSError as error:
        raise CliError(
            f"{out} cannot be written: {error.strerror}", advice="name another file", usage=True
        ) from None
    try:
        yield
    except BaseException:
        out.unlink()
        raise


def _hand_over(
    settings: Settings, response: pb.CreateKeyResponse | pb.RotateKeyResponse, out: Path | None
) -> None:
    key = response.key
    if out is not None:
        out.write_text(response.secret_key + "\n", encoding="ascii")
    if settings.json:
        told = {**as_json(key)} if out is not None else as_json(response)
        print_json(told)
        return
    what = f"{key.id} ({shown(key.name)}), {_scope(key)}, of tenant {key.tenant}"
    console(stderr=True).print(what)
    if out is None:
        # Alone on standard output, so that it can be piped into a file or a vault.
        console().print(response.secret_key, soft_wrap=True, highlight=False)
        console(stderr=True).print("It cannot be read again.")
    else:
        console(stderr=True).print(f"It is in {out}, and cannot be read again.")


def _scope(key: pb.Key) -> str:
    return pb.KeyScope.Name(key.scope).removeprefix("KEY_SCOPE_").lower()
