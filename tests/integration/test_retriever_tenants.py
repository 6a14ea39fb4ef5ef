"""What one tenant has is not there for another, whatever it tries; in SQL and over gRPC."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import grpc
import numpy as np
import psycopg
import pytest
import pytest_asyncio
from psycopg import errors, sql
from pydantic import SecretStr
from support.postgres import new_database, service_url
from support.retriever import REVISION, create, document, failure, packed, settings_for, upsert

from quintet.retriever.v1 import link_service_pb2 as link_pb
from quintet.retriever.v1 import retriever_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2_grpc as pb_grpc
from quintet.retriever.v1.link_service_pb2_grpc import LinkServiceStub
from quintet_retriever.app import open_application
from quintet_retriever.database import SCHEMA, Database
from quintet_retriever.links.models import DocumentLinks
from quintet_retriever.models import (
    Chunk,
    CollectionGoneError,
    CollectionKey,
    DocumentInput,
    Mode,
    NewDocument,
    SearchQuery,
)
from quintet_retriever.search_store import PostgresSearch
from quintet_retriever.store import PostgresStore
from quintet_retriever.word_counter import count
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.identity import Identity, acting_as
from quintet_servicekit.identity_token import IDENTITY_KEY, Signer
from quintet_servicekit.key_files import write_key_pair
from quintet_servicekit.postgres.database import Operation, Statement
from quintet_servicekit.postgres.migrator import (
    MigrationError,
    RoleMissingError,
    ServiceRole,
    migrate,
    migrate_when_possible,
)
from quintet_servicekit.server import RunningServer
from quintet_servicekit.settings import IdentitySettings, SigningSettings

if TYPE_CHECKING:
    from support.retriever import Stub

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANTS, BEES = Identity("ants"), Identity("bees")
CANARY = "pheromone"
"""A word that only the ants have."""
NAME = "notes"


@dataclass
class Tenant:
    """A caller of one tenant."""

    retriever: Stub
    links: Any


@dataclass
class Place:
    """A retriever on a database where the ants have a collection; `url` is the owner's."""

    url: str
    ants: Tenant
    bees: Tenant
    database: Database
    key: CollectionKey
    token: str


class _Vouching(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
    def __init__(self, token: str) -> None:
        self._token = token

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        metadata = [*(details.metadata or ()), (IDENTITY_KEY, self._token)]
        return await continuation(details._replace(metadata=metadata), request)


@pytest.fixture(scope="module")
def url(postgres_server: str) -> Iterator[str]:
    with new_database(postgres_server) as it:
        yield it


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("keys")
    private, public = folder / "one.key", folder / "one.pem"
    write_key_pair(private, public)
    signer = Signer(private, SigningSettings())
    settings = settings_for(url, identity=IdentitySettings(public_keys=public))
    async with (
        open_application(settings) as application,
        RunningServer(settings, application) as server,
    ):
        stop = asyncio.Event()
        running = asyncio.create_task(server.until(stop))
        await server.ready()
        tenants = {}
        for identity in (ANTS, BEES):
            channel = grpc.aio.insecure_channel(
                f"127.0.0.1:{server.port}",
                interceptors=[_Vouching(signer.token(identity, "retriever"))],  # type: ignore[list-item]
            )
            tenants[identity.tenant] = Tenant(
                pb_grpc.RetrieverServiceStub(channel), LinkServiceStub(channel)
            )
        ants = tenants["ants"]
        await create(ants.retriever, NAME)
        written = await ants.retriever.UpsertDocuments(
            pb.UpsertDocumentsRequest(
                collection=NAME,
                documents=[
                    document(name, [f"{CANARY} {name}", f"{CANARY} trail"], kind=CANARY)
                    for name in ("one", "two")
                ],
                request_id="11111111-1111-4111-8111-111111111111",
            )
        )
        await ants.links.CreateLink(
            link_pb.CreateLinkRequest(
                collection=NAME,
                source_id="one",
                target_id="two",
                type=link_pb.LINK_TYPE_RELATED,
                note=CANARY,
            )
        )
        database = Database(settings)
        await database.open()
        with acting_as(ANTS):
            found = await PostgresStore(database, settings).find_collection(NAME)
        assert found is not None
        yield Place(url, ants, tenants["bees"], database, found.key, written.consistency_token)
        await database.close()
        stop.set()
        await running


def connect(url: str, tenant: str | None = None) -> psycopg.Connection[Any]:
    """Return a connection as the service has them, for a tenant or nobody."""
    connection = psycopg.connect(service_url(url), autocommit=True)
    if tenant is not None:
        connection.execute("SELECT set_config('quintet.tenant', %s, false)", [tenant])
    return connection


def readable(connection: psycopg.Connection[Any]) -> list[str]:
    """Return everything in the schema that may be read."""
    rows = connection.execute(
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'retriever'::regnamespace"
        " AND relkind IN ('r', 'v', 'p', 'm') AND has_table_privilege(oid, 'SELECT') ORDER BY 1"
    )
    return [name for (name,) in rows]


async def test_nothing_that_may_be_read_shows_another_tenants_rows(place: Place) -> None:
    def rows_of(tenant: str | None) -> dict[str, str]:
        with connect(place.url, tenant) as connection:
            return {
                name: str(
                    connection.execute(
                        sql.SQL("SELECT it::text FROM {} AS it").format(sql.SQL(name))
                    ).fetchall()
                )
                for name in readable(connection)
            }

    own = rows_of("ants")
    assert len(own) >= 4 + 7
    # Every one of them has rows of theirs, but for the words, which few chunks have not, and
    # the outbox, which is emptied.
    empty = {name for name, rows in own.items() if rows == "[]"}
    assert {name.rpartition("_")[0] for name in empty} <= {"retriever.word", ""}
    assert sum(CANARY in rows for rows in own.values()) >= 5
    for tenant in ("bees", "default", "", None):
        assert set(rows_of(tenant).values()) == {"[]"}


async def test_every_table_has_a_policy_or_is_the_owners_alone(place: Place) -> None:
    with connect(place.url) as connection:
        open_to_service = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'retriever'::regnamespace"
            " AND relkind IN ('r', 'p') AND NOT relrowsecurity"
            " AND has_table_privilege(oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')"
        )
        assert open_to_service.fetchall() == []
        unpinned = connection.execute(
            "SELECT proname FROM pg_proc WHERE pronamespace = 'retriever'::regnamespace"
            " AND prosecdef AND NOT coalesce("
            "  'search_path=pg_catalog, pg_temp' = ANY (proconfig), FALSE)"
        )
        assert unpinned.fetchall() == []
        callable_ = connection.execute(
            "SELECT proname FROM pg_proc WHERE pronamespace = 'retriever'::regnamespace"
            " AND prosecdef AND has_function_privilege(oid, 'EXECUTE') ORDER BY 1"
        )
        # What is new here was looked at: what it does for whom.
        assert [name for (name,) in callable_.fetchall()] == [
            "carry_links",
            "count_words_of",
            "create_collection_tables",
            "due_collections",
            "extend_trust",
            "held",
            "outbox_done",
            "outbox_rows",
            "prune",
            "revocations",
            "revoke_trust",
            "switch_collections",
        ]


@pytest.mark.parametrize(
    "attempt",
    [
        "SET ROLE {owner}",
        "SET SESSION AUTHORIZATION {owner}",
        "ALTER TABLE {chunk} DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE {chunk} OWNER TO CURRENT_USER",
        "DROP POLICY tenant ON {chunk}",
        "CREATE POLICY mine ON {chunk} USING (TRUE)",
        "ALTER POLICY tenant ON {chunk} USING (TRUE)",
        "CREATE OR REPLACE VIEW {chunks} AS SELECT * FROM {chunk}",
        "CREATE OR REPLACE FUNCTION retriever.tenant() RETURNS text LANGUAGE sql RETURN 'ants'",
        "SET row_security = off; SELECT * FROM {chunk}",
        "TRUNCATE {document} CASCADE",
        "DROP TABLE {chunk}",
        "CREATE TABLE retriever.mine ()",
        "CREATE TRIGGER mine AFTER INSERT ON {chunk} EXECUTE FUNCTION retriever.collection_made()",
        "GRANT quintet TO CURRENT_USER",
        "ALTER ROLE CURRENT_USER BYPASSRLS",
        "CREATE ROLE mine SUPERUSER",
        "COPY {chunk} TO '/mine'",
        "COPY {chunk} TO PROGRAM 'cat'",
        "SELECT pg_read_file('postgresql.conf')",
        "SELECT rolpassword FROM pg_authid",
        "SELECT retriever.count_words({id})",
        "SELECT retriever.protect('{chunk}')",
        "SELECT retriever.admit('service')",
        "SELECT retriever.give_to_tenant({id}, 'bees', ARRAY['chunk'])",
        "SELECT * FROM retriever.relay",
        "DELETE FROM retriever.schema_migration",
        "INSERT INTO {document} (id, title, content, content_length, content_hash, metadata)"
        " VALUES ('x', '', '', 0, '', '{{}}')",
        "INSERT INTO retriever.collection (tenant, name, embedding_model, embedding_revision,"
        " dimension, description) VALUES ('ants', 'mine', 'm', 'r', 2, '')",
        "INSERT INTO retriever.outbox (tenant, name, collection_id, epoch)"
        " VALUES ('ants', 'notes', {id}, 99)",
    ],
)
async def test_sql_of_the_service_cannot_pass_by_the_policies(place: Place, attempt: str) -> None:
    number = place.key.id
    statement = attempt.format(
        owner=urlsplit(place.url).username,
        id=number,
        **{kind: f"retriever.{kind}_{number}" for kind in ("chunk", "chunks", "document")},
    )
    with connect(place.url, "bees") as connection, pytest.raises(errors.InsufficientPrivilege):
        connection.execute(statement.encode())


async def test_statements_on_anothers_collection_change_and_find_nothing(place: Place) -> None:
    number = place.key.id
    with connect(place.url, "bees") as connection:
        for statement in (
            f"UPDATE retriever.document_{number} SET title = 'mine'",
            f"DELETE FROM retriever.chunk_{number}",
            f"UPDATE retriever.collection SET name = 'mine' WHERE id = {number}",
            f"DELETE FROM retriever.collection WHERE id = {number}",
            "DELETE FROM retriever.request",
            f"SELECT FROM retriever.collection WHERE id = {number} FOR UPDATE",
        ):
            assert connection.execute(statement.encode()).rowcount == 0
        found = connection.execute(f"SELECT retriever.count_words_of({number})".encode())
        assert found.fetchone() == (False,)
        with pytest.raises(errors.UndefinedTable):
            connection.execute(
                "SELECT retriever.create_collection_tables(%s, 2, 16, 64, 'english')", [number]
            )
        # What the planner knows of the values.
        assert (
            connection.execute(
                "SELECT FROM pg_stats WHERE schemaname = 'retriever' AND tablename ~ 'chunk'"
            ).fetchall()
            == []
        )
    with connect(place.url, "bees") as one, pytest.raises(errors.InsufficientPrivilege):
        own = one.execute("SELECT retriever.tenant()").fetchone()
        assert own == ("bees",)
        one.execute("UPDATE retriever.collection SET tenant = 'ants'")
        one.execute(
            "INSERT INTO retriever.change (tenant, collection_id, epoch) VALUES ('ants', 1, 1)"
        )


async def test_a_prepared_statement_is_each_tenants_own(place: Place) -> None:
    with connect(place.url) as connection:
        connection.execute("SET plan_cache_mode = force_generic_plan")
        seen = []
        for tenant in (*["ants"] * 7, *["bees"] * 3, "ants"):
            connection.execute("SELECT set_config('quintet.tenant', %s, false)", [tenant])
            counts = [
                connection.execute(
                    f"SELECT count(*) FROM retriever.{kind}_{place.key.id}".encode(), prepare=True
                ).fetchone()
                for kind in ("chunk", "chunks", "document", "documents")
            ]
            seen.append(counts == [(4,), (4,), (2,), (2,)])
            assert seen[-1] or counts == [(0,)] * 4
        assert seen == [*[True] * 7, *[False] * 3, True]


async def test_a_connections_tenant_ends_with_its_transaction(place: Place) -> None:
    operation = Operation("SELECT", "collection")
    names = Statement(sql.SQL("SELECT name, retriever.tenant() AS whose FROM retriever.collection"))
    for _ in range(12):  # over all connections of the pool, and some of them again
        with acting_as(ANTS):
            assert await place.database.run(operation, names) == [{"name": NAME, "whose": "ants"}]
        with acting_as(BEES):
            assert await place.database.run(operation, names) == []
            assert await place.database.run(operation, names, names) == []


async def test_the_index_of_words_serves_searches_though_there_is_a_policy(place: Place) -> None:
    with connect(place.url, "ants") as connection:
        connection.execute("SET enable_seqscan = off")

        def plan(table: str) -> str:
            statement = (
                f"EXPLAIN SELECT FROM retriever.{table}_{place.key.id}"
                " WHERE words @@ 'pheromone'::tsquery"
            )
            return str(connection.execute(statement.encode()).fetchall())

        assert "Bitmap Index Scan" in plan("chunks")
        # Why there are views; where this changes they can go.
        assert "Bitmap Index Scan" not in plan("chunk")


async def test_the_store_finds_nothing_by_anothers_key(place: Place) -> None:
    settings = settings_for(place.url)
    store, search = (
        PostgresStore(place.database, settings),
        PostgresSearch(place.database, settings),
    )
    vector = np.array([1, 0], dtype="f4")
    chunk = Chunk(text="mine", start=0, end=4, tokens=1, vector=vector.tobytes())
    source = DocumentInput("mine", "", "mine", "", {}, (chunk,))
    with acting_as(BEES):
        assert await store.find_collection(NAME) is None
        assert await store.list_collections("", 100) == []
        assert await store.delete_collection(NAME) is None
        assert await store.read_document(place.key, "one", include_content=True) is None
        assert await store.read_chunks(place.key, "one") is None
        assert await store.list_documents(place.key, "", 10, None) == []
        assert await store.delete_document(place.key, "one") is None
        assert await store.invalidate(place.key, None) is None
        with pytest.raises(CollectionGoneError):
            await search.search(place.key, SearchQuery(Mode.HYBRID, CANARY, vector, 5, None))
        with pytest.raises(errors.InsufficientPrivilege):
            await store.write_document(
                place.key, NewDocument(source, vector.reshape(1, 2), DocumentLinks((), (), 0))
            )
    connection = await psycopg.AsyncConnection.connect(service_url(place.url), autocommit=True)
    async with connection:
        assert not await count(connection, "bees", place.key.id)


def attempts(token: str, filter_text: str) -> Mapping[str, tuple[str, Any]]:
    """Return calls at a collection, by what they are: the stub's method and the request."""
    vector = packed([1, 0])
    condition = pb.Filter()
    condition.equals.key = "kind"
    condition.equals.value.string_value = filter_text
    return {
        "get": ("GetCollection", pb.GetCollectionRequest(name=NAME)),
        "delete": ("DeleteCollection", pb.DeleteCollectionRequest(name=NAME)),
        "document": ("GetDocument", pb.GetDocumentRequest(collection=NAME, id="one")),
        "chunks": ("GetChunks", pb.GetChunksRequest(collection=NAME, id="one")),
        "drop": ("DeleteDocument", pb.DeleteDocumentRequest(collection=NAME, id="one")),
        "list": ("ListDocuments", pb.ListDocumentsRequest(collection=NAME, filter=condition)),
        "search": (
            "Search",
            pb.SearchRequest(
                collection=NAME, text=CANARY, vector=vector, embedding_revision=REVISION,
                k=5, filter=condition,
            ),
        ),
        "write": (
            "UpsertDocuments",
            pb.UpsertDocumentsRequest(
                collection=NAME, embedding_revision=REVISION, documents=[document("one")]
            ),
        ),
        "invalidate": ("InvalidateCollection", pb.InvalidateCollectionRequest(collection=NAME)),
        "token": (
            "Search",
            pb.SearchRequest(
                collection=NAME, text=CANARY, vector=vector, embedding_revision=REVISION,
                consistency=pb.Consistency(at_least_as_fresh=token),
            ),
        ),
        "switch": (
            "SwitchCollections",
            pb.SwitchCollectionsRequest(name=NAME, other="other", consistency_token=token),
        ),
    }  # fmt: skip


def told(error: ServiceError) -> tuple[object, ...]:
    return error.reason, error.message, dict(error.metadata), list(error.violations)


async def test_not_yours_and_not_there_are_one_error(place: Place) -> None:
    injection = f"{CANARY}' OR tenant = 'ants' OR '1' = '1"
    stub = place.bees.retriever
    for what, (method, request) in attempts(place.token, injection).items():
        error = await failure(getattr(stub, method)(request))
        # The same of a name that nobody has, as if it were that one.
        elsewhere = type(request).FromString(request.SerializeToString())
        field = "name" if hasattr(request, "name") else "collection"
        setattr(elsewhere, field, "nobodys")
        other = await failure(getattr(stub, method)(elsewhere))
        as_this = str(told(other)).replace("nobodys", NAME)
        assert str(told(error)) == as_this, what
        wanted = (
            Reason.INVALID_FIELD if what in ("token", "switch") else Reason.COLLECTION_NOT_FOUND
        )
        assert error.reason is wanted, what
    standing = await place.ants.retriever.GetCollection(pb.GetCollectionRequest(name=NAME))
    assert standing.collection.document_count == 2


async def test_two_tenants_have_a_collection_of_one_name_each(place: Place) -> None:
    ants, bees = place.ants.retriever, place.bees.retriever
    await create(bees, "twins")
    await create(ants, "twins")
    await upsert(bees, "twins", document("one", ["honey comb"]))
    await upsert(ants, "twins", document("one", [f"{CANARY} hill"]), document("two", ["sand"]))
    search = pb.SearchRequest(
        collection="twins", text=f"{CANARY} honey", vector=packed([1, 0]),
        embedding_revision=REVISION, k=10,
    )  # fmt: skip
    found = await bees.Search(search)
    assert [hit.text for hit in found.hits] == ["honey comb"]
    theirs = await ants.Search(search)
    assert {hit.text for hit in theirs.hits} == {f"{CANARY} hill", "sand"}

    # Of one name and yet not each other's: tokens, states, pages, request ids, links.
    search.consistency.at_least_as_fresh = theirs.consistency_token
    refused = await failure(bees.Search(search))
    search.consistency.at_least_as_fresh = "AAAA"
    assert told(refused) == told(await failure(bees.Search(search)))
    search.consistency.Clear()
    search.known_state = theirs.state
    again = await bees.Search(search)
    assert not again.unchanged and [hit.text for hit in again.hits] == ["honey comb"]

    page = pb.ListDocumentsRequest(collection="twins", page_size=1)
    page.page_token = (await ants.ListDocuments(page)).next_page_token
    assert (await failure(bees.ListDocuments(page))).reason is Reason.INVALID_PAGE_TOKEN
    assert [it.id for it in (await ants.ListDocuments(page)).documents] == ["two"]

    once = pb.UpsertDocumentsRequest(
        collection="twins",
        embedding_revision=REVISION,
        documents=[document("three", ["wax"])],
        request_id="11111111-1111-4111-8111-111111111111",
    )
    written = await bees.UpsertDocuments(once)
    assert [it.version for it in written.documents] == [1]

    links = await place.bees.links.ListLinks(
        link_pb.ListLinksRequest(collection="twins", document_id="one")
    )
    assert not links.links
    await bees.DeleteCollection(pb.DeleteCollectionRequest(name="twins"))
    assert (await ants.GetCollection(pb.GetCollectionRequest(name="twins"))).collection
    await ants.DeleteCollection(pb.DeleteCollectionRequest(name="twins"))


async def test_a_service_refuses_to_start_with_a_role_that_could_read_everything(
    database_url: str,
) -> None:
    owners = settings_for(database_url, database_url=SecretStr(database_url))
    with pytest.raises(MigrationError, match="could read every tenant's rows"):
        await migrate_when_possible(owners, SCHEMA)


async def test_a_service_waits_for_a_role_that_its_owner_may_not_make(
    database_url: str,
) -> None:
    """An operator such as CloudNativePG makes roles some time after the database answers."""
    name = f"owner_{secrets.token_hex(4)}"
    parts = urlsplit(database_url)
    url = parts._replace(netloc=f"{name}:pass@{parts.netloc.partition('@')[2]}").geturl()
    role = f"late_{secrets.token_hex(4)}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'pass'".encode())
        connection.execute(f"ALTER DATABASE {parts.path[1:]} OWNER TO {name}".encode())
        for extension in ("vector", "unaccent"):
            connection.execute(f"CREATE EXTENSION {extension}".encode())
        settings = settings_for(
            url,
            owner_database_url=SecretStr(url),
            database_url=SecretStr(url.replace(f"{name}:", f"{role}:")),
        )
        with pytest.raises(RoleMissingError, match=role):
            await migrate(
                url, SCHEMA, connect_timeout=5, lock_timeout=5, service=ServiceRole(role, "pass")
            )
        migrating = asyncio.create_task(migrate_when_possible(settings, SCHEMA))
        done, _ = await asyncio.wait([migrating], timeout=1)
        assert not done
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'pass'".encode())
        await asyncio.wait_for(migrating, 30)


async def test_what_an_earlier_release_left_belongs_to_the_default_tenant(
    database_url: str,
) -> None:
    before = [it for it in SCHEMA.shipped() if it.version < 9]
    await migrate(database_url, SCHEMA, connect_timeout=5, lock_timeout=5, migrations=before)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "WITH made AS (INSERT INTO retriever.collection (name, embedding_model,"
            " embedding_revision, dimension, description) VALUES ('old', 'm', %s, 2, '')"
            " RETURNING id) SELECT retriever.create_collection_tables(id, 2, 16, 64, 'english')"
            " FROM made",
            [REVISION],
        )
        (number,) = connection.execute("SELECT id FROM retriever.collection").fetchone() or ()
        connection.execute(
            f"INSERT INTO retriever.document_{number} (id, title, content, content_length,"
            " content_hash, metadata) VALUES ('a', 't', 'old text', 8, '', '{}')".encode()
        )
    settings = settings_for(database_url)
    await migrate_when_possible(settings, SCHEMA)
    database = Database(settings)
    await database.open()
    store = PostgresStore(database, settings)
    found = await store.find_collection("old")
    assert found is not None
    assert await store.read_document(found.key, "a", include_content=True) is not None
    with acting_as(BEES):
        assert await store.find_collection("old") is None
        assert await store.read_document(found.key, "a", include_content=True) is None
    assert await store.delete_collection("old") is not None
    await database.close()


async def test_an_owner_need_not_be_a_superuser(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        name = urlsplit(database_url).path[1:]
        for extension in ("vector", "unaccent"):
            connection.execute(f"CREATE EXTENSION {extension}".encode())
        connection.execute("CREATE ROLE plain LOGIN PASSWORD 'pass'")
        connection.execute("CREATE ROLE worker LOGIN PASSWORD 'pass'")
        connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO plain").format(sql.Identifier(name)))
    try:
        settings = settings_for(
            service_url(database_url, "plain"),
            database_url=SecretStr(service_url(database_url, "worker")),
        )
        await migrate_when_possible(settings, SCHEMA)
        async with open_application(settings):
            database = Database(settings)
            await database.open()
            with acting_as(ANTS):
                rows = await database.run(
                    Operation("SELECT", "collection"),
                    Statement(sql.SQL("SELECT current_user AS who FROM retriever.collection")),
                )
            assert rows == []
            await database.close()
    finally:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("REASSIGN OWNED BY plain TO CURRENT_USER")
            connection.execute("DROP OWNED BY plain, worker")
            connection.execute("DROP ROLE plain, worker")
