"""Keys from their making to their end, through a gateway that asks for them."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from support.gateway import gateway_stub, new_collection, reason
from support.replica import database_variables, second_gateway
from support.stack import TestStack

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1 import key_service_pb2 as key_pb
from quintet.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from quintet.gateway.v1.key_service_pb2_grpc import KeyServiceStub
from quintet_servicekit.api_key import new_key, parsed
from quintet_servicekit.identity_token import IDENTITY_KEY

Header = tuple[tuple[str, str], ...]


@asynccontextmanager
async def closed_gateway(stack: TestStack, **settings: str) -> AsyncIterator[str]:
    """Yield the address of a gateway of the stack that asks for keys."""
    folder = stack.state_dir
    own = {
        "ACCESS__MODE": "keys",
        "ACCESS__KEY_FILE": str(folder / "api-key"),
        "SIGNING__KEY": str(folder / "identity.key"),
    }
    for name, value in database_variables(stack, "gateway").items():
        own[name.removeprefix("QUINTET_GATEWAY_")] = value
    async with second_gateway(stack, **{**own, **settings}) as address:
        yield address


def bearer(key: str) -> Header:
    return (("authorization", f"Bearer {key}"),)


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value.code(), reason(refused.value)


UNAUTHENTICATED = (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
DENIED = (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
NO_KEY = (grpc.StatusCode.NOT_FOUND, "KEY_NOT_FOUND")


async def test_a_key_is_made_used_rotated_and_revoked(stack: TestStack) -> None:
    operator = bearer((stack.state_dir / "api-key").read_text().strip())
    async with (
        closed_gateway(stack) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        gateway, keys = GatewayServiceStub(channel), KeyServiceStub(channel)
        listing = pb.ListCollectionsRequest()
        assert await refusal(gateway.ListCollections(listing)) == UNAUTHENTICATED
        forged = ((IDENTITY_KEY, "whatever"),)
        assert await refusal(gateway.ListCollections(listing, metadata=forged)) == UNAUTHENTICATED
        # A caller's own is neither believed nor handed on: the services would refuse it.
        assert await gateway.ListCollections(listing, metadata=(*operator, *forged))

        made = await keys.CreateKey(
            key_pb.CreateKeyRequest(name="reader", tenant="bees"), metadata=operator
        )
        key = parsed(made.secret_key)
        assert key is not None
        assert (made.key.id, made.key.tenant, made.key.scope) == (
            key.id,
            "bees",
            key_pb.KEY_SCOPE_READ,
        )
        reader = bearer(made.secret_key)
        await gateway.ListCollections(listing, metadata=reader)
        delete = pb.DeleteCollectionRequest(name="any")
        assert await refusal(gateway.DeleteCollection(delete, metadata=reader)) == DENIED
        assert await refusal(keys.ListKeys(key_pb.ListKeysRequest(), metadata=reader)) == DENIED

        rotated = await keys.RotateKey(
            key_pb.RotateKeyRequest(key_id=key.id, tenant="bees"), metadata=operator
        )
        assert rotated.key.replaces == key.id
        assert rotated.key.scope == key_pb.KEY_SCOPE_READ
        assert rotated.old_key.HasField("revoked")
        for each in (made, rotated):
            await gateway.ListCollections(listing, metadata=bearer(each.secret_key))
        await keys.RevokeKey(
            key_pb.RevokeKeyRequest(key_id=key.id, tenant="bees"), metadata=operator
        )
        assert await refusal(gateway.ListCollections(listing, metadata=reader)) == UNAUTHENTICATED
        again = key_pb.RotateKeyRequest(key_id=key.id, tenant="bees")
        assert await refusal(keys.RotateKey(again, metadata=operator)) == NO_KEY

        listed = await keys.ListKeys(key_pb.ListKeysRequest(tenant="bees"), metadata=operator)
        assert {it.id for it in listed.keys} == {key.id, rotated.key.id}


async def test_a_tenants_admin_manages_its_own_keys_and_no_others(stack: TestStack) -> None:
    operator = bearer((stack.state_dir / "api-key").read_text().strip())
    async with (
        closed_gateway(stack) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        keys = KeyServiceStub(channel)
        create = key_pb.CreateKeyRequest(name="admin", scope=key_pb.KEY_SCOPE_ADMIN)
        create.tenant = "ants"
        ants = bearer((await keys.CreateKey(create, metadata=operator)).secret_key)
        create.tenant = "moths"
        moths = await keys.CreateKey(create, metadata=operator)

        create.tenant = ""
        assert (await keys.CreateKey(create, metadata=ants)).key.tenant == "ants"
        create.tenant = "moths"
        assert await refusal(keys.CreateKey(create, metadata=ants)) == DENIED
        other = key_pb.ListKeysRequest(tenant="moths")
        assert await refusal(keys.ListKeys(other, metadata=ants)) == DENIED
        # An id of another tenant is as one that is not there.
        for key_id in (moths.key.id, new_key().id):
            revoke = key_pb.RevokeKeyRequest(key_id=key_id)
            assert await refusal(keys.RevokeKey(revoke, metadata=ants)) == NO_KEY
            rotate = key_pb.RotateKeyRequest(key_id=key_id)
            assert await refusal(keys.RotateKey(rotate, metadata=ants)) == NO_KEY
        pages: list[key_pb.Key] = []
        token = ""
        while True:
            request = key_pb.ListKeysRequest(page_size=1, page_token=token)
            page = await keys.ListKeys(request, metadata=ants)
            pages += page.keys
            token = page.next_page_token
            if not token:
                break
        assert [it.tenant for it in pages] == ["ants", "ants"]


async def test_a_stream_ends_when_its_callers_key_is_revoked(stack: TestStack) -> None:
    operator = bearer((stack.state_dir / "api-key").read_text().strip())
    async with (
        closed_gateway(stack, ACCESS__FRESH_SECONDS="0.2") as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        gateway: Any = GatewayServiceStub(channel)
        keys = KeyServiceStub(channel)
        create = key_pb.CreateKeyRequest(name="writer", scope=key_pb.KEY_SCOPE_WRITE)
        made = await keys.CreateKey(create, metadata=operator)
        stream = gateway.Ingest(metadata=bearer(made.secret_key))

        async def acknowledged(number: int) -> pb.IngestResponse:
            request = pb.IngestRequest(collection="not there")
            request.document.id = str(number)
            await stream.write(request)
            response: pb.IngestResponse = await stream.read()
            return response

        assert (await acknowledged(0)).HasField("refused")
        revoke = key_pb.RevokeKeyRequest(key_id=made.key.id)
        await keys.RevokeKey(revoke, metadata=operator)
        with pytest.raises((grpc.aio.AioRpcError, asyncio.InvalidStateError)):
            async with asyncio.timeout(20):
                for number in range(1, 1_000):
                    await acknowledged(number)
                    await asyncio.sleep(0.05)
        assert await stream.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_key_that_is_revoked_on_one_gateway_is_refused_by_another_at_once(
    stack: TestStack,
) -> None:
    operator = bearer((stack.state_dir / "api-key").read_text().strip())
    # By age alone it would be refused in an hour.
    settings = {"ACCESS__FRESH_SECONDS": "3600", "CACHE__REDIS_TIMEOUT_SECONDS": "2"}
    async with (
        closed_gateway(stack, **settings) as here,
        closed_gateway(stack, **settings) as there,
        grpc.aio.insecure_channel(here) as channel,
        grpc.aio.insecure_channel(there) as other_channel,
    ):
        keys = KeyServiceStub(channel)
        gateway: Any = GatewayServiceStub(other_channel)
        create = key_pb.CreateKeyRequest(name="writer", scope=key_pb.KEY_SCOPE_WRITE)
        made = await keys.CreateKey(create, metadata=operator)
        writer = bearer(made.secret_key)
        await gateway.GetStatus(pb.GetStatusRequest(), metadata=writer)
        stream = gateway.Ingest(metadata=writer)
        document = pb.IngestRequest(collection="not there")
        document.document.id = "a"
        await stream.write(document)
        assert (await stream.read()).HasField("refused")

        revoke = key_pb.RevokeKeyRequest(key_id=made.key.id)
        await keys.RevokeKey(revoke, metadata=operator)
        async with asyncio.timeout(20):
            while True:
                try:
                    await gateway.GetStatus(pb.GetStatusRequest(), metadata=writer)
                except grpc.aio.AioRpcError as error:
                    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
                    break
                await asyncio.sleep(0.01)
        # What was under way ends with its next response.
        await stream.write(document)
        await stream.read()
        async with asyncio.timeout(20):
            assert await stream.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_secret_stands_in_no_log_no_list_and_no_table(stack: TestStack, tmp_path: Path) -> None:
    """A canary through a making, calls that are refused, and a listing, by the command line;
    then it is searched for everywhere."""

    async def run() -> tuple[str, list[str]]:
        async with closed_gateway(stack) as address:
            file = tmp_path / "canary.key"
            environment = {
                **os.environ,
                "QUINTET_ADDRESS": address,
                "QUINTET_API_KEY_FILE": str(stack.state_dir / "api-key"),
            }

            async def quintet(*words: str) -> str:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "quintet_cli", *words,
                    env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                )  # fmt: skip
                printed, _ = await process.communicate()
                return printed.decode()

            printed = [await quintet("keys", "create", "canary", "--out", str(file))]
            assert file.stat().st_mode & 0o777 == 0o600
            key = file.read_text().strip()
            printed.append(await quintet("keys", "list"))
            refused = await quintet(
                "cache", "purge", "--everything", "--yes", "--key-file", str(file)
            )
            assert "PERMISSION_DENIED" in refused
            damaged = tmp_path / "damaged.key"
            damaged.write_text(key[:-1] + ("a" if key[-1] != "a" else "b"))
            refused = await quintet("collections", "--key-file", str(damaged))
            assert "UNAUTHENTICATED" in refused
            assert "--key-file" in refused
            printed += [refused, await quintet("collections", "--key-file", str(file))]
            return key, printed

    key, printed = asyncio.run(run())
    found = parsed(key)
    assert found is not None
    with psycopg.connect(
        database_variables(stack, "gateway")["QUINTET_GATEWAY_OWNER_DATABASE_URL"]
    ) as connection:
        rows = connection.execute("SELECT k::text FROM gateway.api_key k").fetchall()
    assert any(found.id in row[0] for row in rows)
    logs = [file.read_text(errors="replace") for file in stack.state_dir.rglob("*.log")]
    traces = [file.read_text(errors="replace") for file in stack.state_dir.rglob("traces/*")]
    assert any(found.id in log for log in logs)
    for text in [*printed, *logs, *traces, *(row[0] for row in rows)]:
        assert found.secret not in text
        assert found.secret.encode().hex() not in text


async def test_what_the_readme_says_of_keys_works_as_it_stands_there(
    stack: TestStack, tmp_path: Path
) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    lines = re.findall(r"^\$ \.venv/bin/quintet (.+)$", readme, re.MULTILINE)
    commands = [shlex.split(it) for it in lines if " keys " in f" {it}" or ".key" in it]
    assert [it[:2] for it in commands] == [
        ["keys", "create"],
        ["keys", "list"],
        ["search", "drain on SIGTERM"],
        ["keys", "rotate"],
        ["keys", "revoke"],
    ]
    document = pb.Document(id="a", content="Services drain on SIGTERM.")
    async with (
        gateway_stub(stack.gateway) as stub,
        new_collection(stub, [document]) as name,
        closed_gateway(stack, ACCESS__FRESH_SECONDS="0.2") as address,
    ):
        environment = {
            **os.environ,
            "QUINTET_ADDRESS": address,
            "QUINTET_API_KEY_FILE": str(stack.state_dir / "api-key"),
        }

        async def quintet(*words: str) -> tuple[int | None, str]:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "quintet_cli", *words, cwd=tmp_path,
                env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            printed, _ = await process.communicate()
            return process.returncode, printed.decode()

        key_id = ""
        for command in commands:
            given = {"handbook": name, "ID": key_id}
            code, printed = await quintet(*(given.get(word, word) for word in command))
            assert code == 0, printed
            if command[1] == "create":
                made = parsed((tmp_path / "reader.key").read_text().strip())
                assert made is not None
                key_id = made.id
        ended, printed = await quintet("collections", "--key-file", "reader.key")
        assert (ended, "UNAUTHENTICATED" in printed) == (1, True)
        assert (await quintet("collections", "--key-file", "new.key"))[0] == 0


async def test_keys_work_while_the_database_is_away_and_unknown_ones_are_not_refused_wrongly(
    stack: TestStack,
) -> None:
    operator = bearer((stack.state_dir / "api-key").read_text().strip())
    async with (
        closed_gateway(stack, ACCESS__FRESH_SECONDS="0.5") as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        gateway, keys = GatewayServiceStub(channel), KeyServiceStub(channel)
        known, unknown = [
            bearer(
                (
                    await keys.CreateKey(key_pb.CreateKeyRequest(name="k"), metadata=operator)
                ).secret_key
            )
            for _ in range(2)
        ]
        status = pb.GetStatusRequest()
        assert (await gateway.GetStatus(status, metadata=known)).access == pb.ACCESS_MODE_KEYS
        await asyncio.to_thread(stack.stop, "postgres")
        try:
            await asyncio.sleep(0.6)
            for _ in range(3):
                await gateway.GetStatus(status, metadata=known)
            assert await gateway.GetStatus(status, metadata=operator)
            assert (await refusal(gateway.GetStatus(status, metadata=unknown)))[0] is (
                grpc.StatusCode.UNAVAILABLE
            )
        finally:
            await asyncio.to_thread(stack.start, "postgres")
        async with asyncio.timeout(20):
            while True:
                try:
                    await gateway.GetStatus(status, metadata=unknown)
                    break
                except grpc.aio.AioRpcError as error:
                    assert error.code() is grpc.StatusCode.UNAVAILABLE
                    await asyncio.sleep(0.1)


async def test_an_open_gateway_says_so(stack: TestStack) -> None:
    async with grpc.aio.insecure_channel(stack.gateway) as channel:
        response = await GatewayServiceStub(channel).GetStatus(pb.GetStatusRequest())
    assert response.access == pb.ACCESS_MODE_OPEN
    assert "OPEN: whoever reaches this port" in (stack.state_dir / "logs/gateway.log").read_text()
