"""What the gateway keeps in PostgreSQL is its tenant's; by SQL of its own role."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors
from pydantic import SecretStr
from support.postgres import service_url

from quintet_gateway.database import SCHEMA
from quintet_gateway.settings import Settings
from quintet_servicekit.postgres.migrator import migrate_when_possible

ID = uuid.uuid4()


@pytest.fixture
async def connection(database_url: str) -> psycopg.Connection[Any]:
    settings = Settings(
        database_url=SecretStr(service_url(database_url)),
        owner_database_url=SecretStr(database_url),
    )
    await migrate_when_possible(settings, SCHEMA)
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("CREATE TABLE gateway.answer_of_ever PARTITION OF gateway.answer DEFAULT")
        for number, tenant in enumerate(("ants", "bees")):
            owner.execute(
                "INSERT INTO gateway.answer (id, tenant, key, record) VALUES (%s, %s, '', '')",
                [uuid.UUID(int=ID.int + number), tenant],
            )
    return psycopg.connect(service_url(database_url), autocommit=True)


@pytest.fixture
def service(connection: psycopg.Connection[Any]) -> Iterator[psycopg.Connection[Any]]:
    with connection:
        yield connection


def act(service: psycopg.Connection[Any], tenant: str) -> None:
    service.execute("SELECT set_config('quintet.tenant', %s, false)", [tenant])


async def test_every_table_has_a_policy_or_is_the_owners_alone(
    service: psycopg.Connection[Any],
) -> None:
    loose = service.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'gateway'::regnamespace"
        " AND relkind IN ('r', 'p') AND NOT relrowsecurity"
        " AND has_table_privilege(oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')"
    )
    assert loose.fetchall() == []
    unpinned = service.execute(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'gateway'::regnamespace AND prosecdef"
        " AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), FALSE)"
    )
    assert unpinned.fetchall() == []


async def test_records_are_seen_and_written_by_their_tenant_alone(
    service: psycopg.Connection[Any],
) -> None:
    for tenant, seen in (("ants", [(ID, "ants")]), ("nobody", []), ("", [])):
        act(service, tenant)
        assert service.execute("SELECT id, tenant FROM gateway.answer").fetchall() == seen
    act(service, "bees")
    guessed = "SELECT FROM gateway.answer WHERE id = %s"
    assert service.execute(guessed, [ID]).rowcount == 0
    assert service.execute("UPDATE gateway.answer SET key = 'mine'").rowcount == 1
    assert service.execute("DELETE FROM gateway.answer").rowcount == 1
    with pytest.raises(errors.InsufficientPrivilege):
        service.execute(
            "INSERT INTO gateway.answer (id, tenant, key, record) VALUES (%s, 'ants', '', '')",
            [uuid.uuid4()],
        )
    # A day's own table is no way around.
    with pytest.raises(errors.InsufficientPrivilege):
        service.execute("SELECT * FROM gateway.answer_of_ever")
    with pytest.raises(errors.InsufficientPrivilege):
        service.execute("ALTER TABLE gateway.answer DISABLE ROW LEVEL SECURITY")
    act(service, "ants")
    assert service.execute("SELECT key FROM gateway.answer").fetchall() == [("",)]
