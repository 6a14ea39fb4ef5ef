"""Writes are known everywhere before they are acknowledged, whatever breaks meanwhile."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import psycopg
from psycopg.sql import SQL
from pydantic import SecretStr
from support.postgres import FAST, service_url
from support.retriever import create, document, packed, retriever_on, settings_for

from quintet.retriever.v1 import retriever_service_pb2 as pb
from quintet_local import process
from quintet_local.ports import free_port
from quintet_local.postgres import Postgres
from quintet_local.valkey import Valkey
from quintet_retriever.database import SCHEMA, Database
from quintet_retriever.relay import Relay
from quintet_servicekit.cache import CacheSettings, Remote, open_remote
from quintet_servicekit.consistency import LAST, Epoch, decode_token
from quintet_servicekit.epochs import LEASE_SECONDS, EpochNews, EpochWatch, open_watch
from quintet_servicekit.postgres.database import Operation, Statement
from quintet_servicekit.postgres.migrator import migrate_when_possible

if TYPE_CHECKING:
    from support.retriever import Stub

NEWS_SECONDS = 0.2
"""How long news may be on their way in these tests, on a machine that does much else."""


def cache(url: str) -> CacheSettings:
    return CacheSettings(redis_url=SecretStr(url))


@asynccontextmanager
async def remote_of(url: str) -> AsyncIterator[Remote]:
    async with open_remote(cache(url)) as remote:
        assert remote is not None
        yield remote


@dataclass
class Replica:
    """A retriever, and another service's watch; `base` is the epoch that it read."""

    stub: Stub
    watch: EpochWatch
    name: str = "c"

    async def read(self) -> Epoch:
        """Read the epoch from the database and note it, as a cache does."""
        mark = self.watch.mark()
        request = pb.SearchRequest(
            collection=self.name,
            vector=packed([1, 0]),
            consistency=pb.Consistency(fully_consistent=True),
        )
        token = (await self.stub.Search(request)).consistency_token
        epoch = decode_token(self.name, token)
        self.watch.note(self.name, epoch, mark)
        return epoch

    async def write(self, identifier: str = "d") -> Epoch:
        request = pb.UpsertDocumentsRequest(collection=self.name, documents=[document(identifier)])
        return decode_token(self.name, (await self.stub.UpsertDocuments(request)).consistency_token)

    def known(self) -> Epoch | None:
        return self.watch.known(self.name)

    async def trusting(self) -> Epoch:
        """Wait until something is known, reading when needed."""
        async with asyncio.timeout(10):
            while True:
                await self.read()
                await asyncio.sleep(0.01)
                if (epoch := self.known()) is not None:
                    return epoch


@asynccontextmanager
async def replica_on(database_url: str, redis_url: str, **settings: Any) -> AsyncIterator[Replica]:
    async with (
        remote_of(redis_url) as remote,
        open_watch(remote) as watch,
        retriever_on(database_url, cache=cache(redis_url), **settings) as stub,
    ):
        await create(stub, "c")
        yield Replica(stub, watch)


async def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


def one(url: str, query: str) -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
    return None if row is None else row[0]


END_RELAYS = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE application_name = 'quintet-retriever-relay' AND datname = current_database()"
)


ACTIVE_RELAYS = (
    "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
    " WHERE locktype = 'advisory' AND application_name = 'quintet-retriever-relay'"
    " AND datname = current_database()"
)


@asynccontextmanager
async def valkey(folder: Path) -> AsyncIterator[tuple[Valkey, Process]]:
    server = Valkey(folder, port=free_port())
    child = await server.start()
    try:
        yield server, child
    finally:
        if child.returncode is None:
            os.kill(child.pid, signal.SIGCONT)
            await server.stop(child)


async def test_a_write_is_known_to_other_services_with_its_acknowledgement(
    database_url: str, redis_url: str
) -> None:
    async with replica_on(database_url, redis_url) as replica:
        await replica.trusting()
        for _ in range(20):
            epoch = await replica.write()
            await until(lambda epoch=epoch: replica.known() == epoch, NEWS_SECONDS)  # type: ignore[misc]
        deletion = pb.DeleteDocumentRequest(collection="c", id="d")
        await replica.stub.DeleteDocument(deletion)
        await until(lambda: replica.known() == Epoch(epoch.collection, epoch.number + 1))
        await replica.stub.InvalidateCollection(pb.InvalidateCollectionRequest(collection="c"))
        await until(lambda: replica.known() == Epoch(epoch.collection, epoch.number + 2))
        await replica.stub.DeleteCollection(pb.DeleteCollectionRequest(name="c"))
        await until(lambda: replica.known() == Epoch(epoch.collection, LAST))
        await create(replica.stub, "c")
        await until(lambda: (replica.known() or epoch) > Epoch(epoch.collection, LAST))


async def test_the_outbox_empties_and_trust_goes_on(database_url: str, redis_url: str) -> None:
    async with replica_on(database_url, redis_url) as replica:
        await replica.trusting()
        for _ in range(5):
            await replica.write()
        ends = time.monotonic() + LEASE_SECONDS + 0.5
        while time.monotonic() < ends:
            assert replica.known() is not None
            await asyncio.sleep(0.01)
        assert one(database_url, "SELECT count(*) FROM retriever.outbox") == 0


async def test_the_relay_announces_what_a_crash_left_unannounced(
    database_url: str, redis_url: str
) -> None:
    # A retriever without Redis is one that never comes to announce, and has a relay that
    # never takes over while the other's is active.
    async with (
        replica_on(database_url, redis_url) as replica,
        retriever_on(database_url) as silent,
    ):
        await replica.trusting()
        unannounced = Replica(silent, replica.watch)
        for _ in range(3):
            epoch = await unannounced.write()
            await until(lambda epoch=epoch: replica.known() == epoch, seconds=1)  # type: ignore[misc]


async def test_a_frozen_redis_delays_the_acknowledgement_until_nobody_trusts_the_past(
    database_url: str, tmp_path: Path
) -> None:
    async with (
        valkey(tmp_path) as (server, child),
        replica_on(database_url, server.url) as replica,
    ):
        before = await replica.trusting()
        os.kill(child.pid, signal.SIGSTOP)
        assert replica.known() == before
        began = time.monotonic()
        after = await replica.write()
        assert time.monotonic() - began < LEASE_SECONDS + 0.3
        assert after > before and replica.known() is None

        # Trust is gone now, so that the next one does not wait.
        began = time.monotonic()
        await replica.write()
        assert time.monotonic() - began < 0.3
        os.kill(child.pid, signal.SIGCONT)
        assert await replica.trusting() == await replica.read()


async def test_without_redis_writes_are_acknowledged_at_once_and_with_it_again_trusted(
    database_url: str, tmp_path: Path
) -> None:
    async with (
        valkey(tmp_path) as (server, child),
        replica_on(database_url, server.url) as replica,
    ):
        await replica.trusting()
        await server.stop(child)
        await replica.write()
        assert replica.known() is None
        for _ in range(10):
            began = time.monotonic()
            await replica.write()
            assert time.monotonic() - began < 0.2
        again = await server.start()
        # Readiness never depended on it, and nothing was restarted.
        async with asyncio.timeout(3):
            assert await replica.trusting() == await replica.read()
        await server.stop(again)


async def test_a_restarted_postgresql_is_relayed_for_again(tmp_path: Path, redis_url: str) -> None:
    server = Postgres(tmp_path, port=free_port(), options=FAST)
    running = await server.start()
    async with replica_on(server.dsn, redis_url) as replica:
        before = await replica.trusting()
        await process.stop(running, signal.SIGINT, grace=10)
        await until(lambda: replica.known() is None, LEASE_SECONDS)
        running = await server.start()
        async with asyncio.timeout(10):
            while True:
                with suppress(grpc.aio.AioRpcError):
                    assert await replica.trusting() == before
                    break
                await asyncio.sleep(0.05)
        epoch = await replica.write()
        await until(lambda: replica.known() == epoch, seconds=2)
    await process.stop(running, signal.SIGINT, grace=10)


async def test_of_several_relays_one_is_active_and_another_takes_over(
    database_url: str, redis_url: str
) -> None:
    async with replica_on(database_url, redis_url) as replica, AsyncExitStack() as stack:
        for _ in range(2):
            other = retriever_on(database_url, cache=cache(redis_url))
            await stack.enter_async_context(other)
        await replica.trusting()
        assert one(database_url, ACTIVE_RELAYS) == 1
        for _ in range(2):
            ended = one(
                database_url,
                "SELECT count(pg_terminate_backend(pid)) FROM pg_locks"
                " JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory'"
                " AND application_name = 'quintet-retriever-relay'"
                " AND datname = current_database()",
            )
            assert ended == 1
            await until(lambda: one(database_url, ACTIVE_RELAYS) == 1)
            assert await replica.trusting() == await replica.write() or replica.known()
        epoch = await replica.write()
        await until(lambda: replica.known() == epoch, seconds=2)


async def test_when_the_active_relays_process_is_killed_another_takes_over(
    database_url: str, redis_url: str
) -> None:
    variables = {
        "QUINTET_RETRIEVER_DATABASE_URL": service_url(database_url),
        "QUINTET_RETRIEVER_OWNER_DATABASE_URL": database_url,
        "QUINTET_RETRIEVER_CACHE__REDIS_URL": redis_url,
    }
    first = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "quintet_retriever",
        env=os.environ | variables,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await until(lambda: one(database_url, ACTIVE_RELAYS) == 1, seconds=30)
        async with replica_on(database_url, redis_url) as replica:
            await replica.trusting()
            first.kill()
            await first.wait()
            began = time.monotonic()
            # Nothing is known until the other one vouches for what was read anew.
            await until(lambda: one(database_url, ACTIVE_RELAYS) == 1, seconds=2)
            await until(lambda: replica.known() is None, seconds=2)
            await replica.trusting()
            assert time.monotonic() - began < 3
            epoch = await replica.write()
            await until(lambda: replica.known() == epoch, seconds=1)
    finally:
        if first.returncode is None:
            first.kill()
            await first.wait()


async def test_when_the_last_relay_ends_so_does_the_trust(
    database_url: str, redis_url: str
) -> None:
    async with remote_of(redis_url) as remote, open_watch(remote) as watch:
        async with retriever_on(database_url, cache=cache(redis_url)) as stub:
            await create(stub, "c")
            await Replica(stub, watch).trusting()
        await until(lambda: watch.known("c") is None, LEASE_SECONDS)
        assert watch.mark() is not None


async def test_a_relay_that_takes_over_lets_all_read_anew(
    database_url: str, redis_url: str
) -> None:
    async with remote_of(redis_url) as remote, open_watch(remote) as watch:
        async with retriever_on(database_url, cache=cache(redis_url)) as stub:
            await create(stub, "c")
            before = await Replica(stub, watch).trusting()
        # It empties the outbox, and nobody is told.
        async with retriever_on(database_url) as silent:
            after = await Replica(silent, EpochWatch()).write()
            await until(lambda: one(database_url, "SELECT count(*) FROM retriever.outbox") == 0)
            await until(lambda: watch.known("c") is None)  # what the first vouched for
        async with retriever_on(database_url, cache=cache(redis_url)) as stub:
            ends = time.monotonic() + 1
            while time.monotonic() < ends:
                assert watch.known("c") in (None, after)
                await asyncio.sleep(0.005)
            assert await Replica(stub, watch).trusting() == after > before


async def test_trust_is_not_renewed_past_a_write_that_took_it_back(
    database_url: str, redis_url: str
) -> None:
    """The relay reads the count of revocations before it looks into the outbox."""
    settings = settings_for(database_url, relay_interval_seconds=1)
    await migrate_when_possible(settings, SCHEMA)
    database = Database(settings)
    await database.open()
    async with remote_of(redis_url) as remote:
        vouched: list[int] = []

        class Interrupted(EpochNews):
            async def announce_all(self, epochs: Any) -> None:
                await super().announce_all(epochs)
                await database.run(
                    Operation("UPDATE", "relay"), Statement(SQL("SELECT retriever.revoke_trust()"))
                )

            async def extend_trust(self, until: float) -> None:
                vouched.append(relay.cycles)

        one(
            database_url,
            "INSERT INTO retriever.outbox (name, collection_id, epoch) VALUES ('c', 1, 1)"
            " RETURNING id",
        )
        relay = Relay(settings, Interrupted(remote))
        running = asyncio.create_task(relay.run())
        # Not in the first cycle, but in the next, which comes at once.
        await until(lambda: vouched == [1], seconds=0.9)
        running.cancel()
        await asyncio.wait({running})
    await database.close()


async def test_changes_are_pruned(database_url: str) -> None:
    async with retriever_on(database_url) as stub:
        await create(stub, "c")
        for _ in range(8):
            await Replica(stub, EpochWatch()).write()
    relay = Relay(settings_for(database_url, keep_changes=3), None)
    running = asyncio.create_task(relay.run())
    await until(lambda: relay.cycles > 0)
    running.cancel()
    await asyncio.wait({running})
    kept = "SELECT array_agg(epoch ORDER BY epoch) FROM retriever.change"
    assert one(database_url, kept) == [6, 7, 8]


async def test_what_is_trusted_is_never_older_than_what_was_acknowledged(
    database_url: str, tmp_path: Path
) -> None:
    """Writers and a reader, while Redis is frozen and restarted and relays are lost."""
    chance = random.Random(5)
    async with valkey(tmp_path) as (server, child), replica_on(database_url, server.url) as replica:
        other = retriever_on(database_url, cache=cache(server.url))
        acknowledged: list[tuple[float, Epoch]] = []
        trusted = 0
        ends = time.monotonic() + 8

        async def keep_writing(stub: Stub) -> None:
            while time.monotonic() < ends:
                epoch = await Replica(stub, replica.watch).write(f"d{chance.randrange(5)}")
                acknowledged.append((time.monotonic(), epoch))
                await asyncio.sleep(0.005)

        async def keep_reading() -> None:
            nonlocal trusted
            while time.monotonic() < ends:
                by_now = time.monotonic() - NEWS_SECONDS
                told = [epoch for at, epoch in acknowledged[-2000:] if at <= by_now]
                known = replica.known()
                if known is None:
                    await replica.read()
                elif told:
                    trusted += 1
                    assert known >= max(told)
                await asyncio.sleep(0.003)

        async def keep_breaking() -> None:
            nonlocal child
            while time.monotonic() < ends:
                await asyncio.sleep(chance.uniform(0.3, 1.2))
                match chance.randrange(3):
                    case 0:
                        os.kill(child.pid, signal.SIGSTOP)
                        await asyncio.sleep(chance.uniform(0.02, 1.8))
                        os.kill(child.pid, signal.SIGCONT)
                    case 1:
                        os.kill(child.pid, signal.SIGKILL)
                        await child.wait()
                        await asyncio.sleep(chance.uniform(0, 0.5))
                        child = await server.start()
                    case 2:
                        one(database_url, END_RELAYS)

        async with other as stub, asyncio.TaskGroup() as group:
            group.create_task(keep_writing(replica.stub))
            group.create_task(keep_writing(stub))
            group.create_task(keep_reading())
            group.create_task(keep_breaking())
        assert trusted > 100 and len(acknowledged) > 50
        await server.stop(child)


async def test_of_writes_at_once_the_last_is_known(database_url: str, redis_url: str) -> None:
    async with replica_on(database_url, redis_url) as replica:
        await replica.trusting()
        epochs = await asyncio.gather(*[replica.write(f"d{i}") for i in range(40)])
        await until(lambda: replica.known() == max(epochs), NEWS_SECONDS)
