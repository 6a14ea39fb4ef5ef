"""Who may ask the gateway: keys that are remembered, scopes, and the header."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import quintet.gateway.v1
from quintet.cache.v1 import cache_service_pb2
from quintet.status.v1 import status_service_pb2
from quintet_gateway.access import ring as ring_module
from quintet_gateway.access import scopes
from quintet_gateway.access.gatekeeper import Gatekeeper
from quintet_gateway.access.models import KeyRecord
from quintet_gateway.access.ring import KeyRing
from quintet_gateway.access.settings import AccessSettings, JwtSettings
from quintet_gateway.app import LIMITED
from quintet_servicekit import key_files
from quintet_servicekit.api_key import ApiKey, new_key
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.identity import Identity, Scope

ASK = "quintet.gateway.v1.GatewayService/Ask"
PURGE = "quintet.gateway.v1.GatewayService/PurgeCache"
AWAY = ServiceError(Reason.DEPENDENCY_UNAVAILABLE, "away")


class Shelf:
    """Keys in memory; fails, hangs and counts as it is told to."""

    def __init__(self) -> None:
        self.records: dict[str, KeyRecord] = {}
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.hanging = asyncio.Event()
        self.hanging.set()
        self.asked = 0

    def add(self, **others: Any) -> ApiKey:
        key = new_key()
        record = KeyRecord(key.id, "bees", "", Scope.READ, key.hash(), datetime.now(UTC))
        self.records[key.id] = replace(record, **others)
        return key

    async def find(self, key_id: str) -> KeyRecord | None:
        self.asked += 1
        found = self.records.get(key_id)
        await self.gate.wait()
        if found is None:
            await self.hanging.wait()
        if self.error is not None:
            raise self.error
        return found


async def reason_of(ring: KeyRing, key: ApiKey) -> tuple[Reason, str]:
    with pytest.raises(ServiceError) as refused:
        await ring.identify(key)
    assert key.secret not in f"{refused.value!r} {refused.value.metadata}"
    return refused.value.reason, refused.value.message


async def test_a_key_is_looked_up_once_for_calls_at_the_same_time_and_after() -> None:
    shelf = Shelf()
    key = shelf.add()
    ring = KeyRing(shelf, AccessSettings())
    found = await asyncio.gather(*(ring.identify(key) for _ in range(50)))
    assert set(found) == {Identity("bees", key.id, Scope.READ)}
    await ring.identify(key)
    assert shelf.asked == 1


async def test_an_unknown_key_and_a_wrong_secret_are_told_alike() -> None:
    shelf = Shelf()
    key = shelf.add()
    ring = KeyRing(shelf, AccessSettings())
    unknown = await reason_of(ring, new_key())
    wrong = await reason_of(ring, ApiKey(key.id, new_key().secret))
    assert unknown == wrong == (Reason.UNAUTHENTICATED, "the API key is not known")


async def test_guesses_are_remembered_apart_from_keys_and_not_looked_up_again() -> None:
    shelf = Shelf()
    key = shelf.add()
    ring = KeyRing(shelf, AccessSettings(max_keys=3))
    await ring.identify(key)
    guesses = [new_key() for _ in range(10)]
    for guess in guesses:
        await reason_of(ring, guess)
    asked = shelf.asked
    await reason_of(ring, guesses[-1])
    await ring.identify(key)
    assert shelf.asked == asked


@pytest.mark.parametrize(
    ("times", "told"),
    [
        ({"expires": datetime.now(UTC) - timedelta(seconds=1)}, "the API key is expired"),
        ({"revoked": datetime.now(UTC) - timedelta(seconds=1)}, "the API key was revoked"),
        (
            {
                "expires": datetime.now(UTC) + timedelta(days=1),
                "revoked": datetime.now(UTC) - timedelta(days=1),
            },
            "the API key was revoked",
        ),
    ],
)
async def test_a_key_that_ended_is_refused(times: dict[str, Any], told: str) -> None:
    shelf = Shelf()
    key = shelf.add(**times)
    ring = KeyRing(shelf, AccessSettings())
    assert await reason_of(ring, key) == (Reason.UNAUTHENTICATED, told)
    # Not even that is told to who does not have the secret.
    _, message = await reason_of(ring, ApiKey(key.id, new_key().secret))
    assert message == "the API key is not known"


async def test_a_key_that_will_be_revoked_works_until_then() -> None:
    shelf = Shelf()
    key = shelf.add(revoked=datetime.now(UTC) + timedelta(hours=1))
    assert (await KeyRing(shelf, AccessSettings()).identify(key)).key == key.id


async def test_a_revocation_is_effective_at_once_here_and_within_seconds_elsewhere() -> None:
    shelf = Shelf()
    key = shelf.add()
    here, elsewhere = (KeyRing(shelf, AccessSettings(fresh_seconds=0.2)) for _ in range(2))
    for ring in (here, elsewhere):
        await ring.identify(key)
    shelf.records[key.id] = replace(shelf.records[key.id], revoked=datetime.now(UTC))
    here.forget(key.id)
    assert (await reason_of(here, key))[1] == "the API key was revoked"
    async with asyncio.timeout(5):
        while True:
            try:
                await elsewhere.identify(key)
            except ServiceError as error:
                assert error.message == "the API key was revoked"
                break
            await asyncio.sleep(0.01)


async def test_a_lookup_from_before_a_revocation_does_not_bring_the_key_back() -> None:
    shelf = Shelf()
    key = shelf.add()
    ring = KeyRing(shelf, AccessSettings())
    shelf.gate.clear()
    early = asyncio.create_task(ring.identify(key))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert shelf.asked == 1
    shelf.records[key.id] = replace(shelf.records[key.id], revoked=datetime.now(UTC))
    ring.forget(key.id)
    shelf.gate.set()
    await early
    assert (await reason_of(ring, key))[1] == "the API key was revoked"


async def test_while_the_database_is_away_known_keys_work_for_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shelf = Shelf()
    key, unknown = shelf.add(), shelf.add()
    ring = KeyRing(shelf, AccessSettings(fresh_seconds=0.01, outage_seconds=0.4))
    await ring.identify(key)
    shelf.error = AWAY
    await asyncio.sleep(0.05)
    assert (await ring.identify(key)).tenant == "bees"
    reason, message = await reason_of(ring, unknown)
    assert reason is Reason.DEPENDENCY_UNAVAILABLE
    assert message == "whether the API key is valid cannot be found out now"
    # A wrong secret of a known key is wrong whatever is away.
    assert (await reason_of(ring, ApiKey(key.id, unknown.secret)))[0] is Reason.UNAUTHENTICATED
    await asyncio.sleep(0.5)
    assert (await reason_of(ring, key))[0] is Reason.DEPENDENCY_UNAVAILABLE
    shelf.error = None
    assert (await ring.identify(key)).tenant == "bees"


async def test_a_database_that_hangs_holds_calls_with_known_keys_up_once_and_shortly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ring_module, "PATIENCE_SECONDS", 0.01)
    shelf = Shelf()
    key = shelf.add()
    ring = KeyRing(shelf, AccessSettings(fresh_seconds=0.01))
    await ring.identify(key)
    shelf.gate.clear()
    await asyncio.sleep(0.02)
    async with asyncio.timeout(5):
        for _ in range(100):
            await ring.identify(key)
    shelf.gate.set()
    await ring.aclose()


async def test_who_makes_keys_up_has_so_many_looked_up_at_once_and_no_more() -> None:
    shelf = Shelf()
    key = shelf.add()
    ring = KeyRing(shelf, AccessSettings(max_lookups=4))
    await ring.identify(key)
    shelf.gate.clear()
    calls = [asyncio.create_task(ring.identify(new_key())) for _ in range(4)]
    await asyncio.sleep(0)
    assert (await reason_of(ring, new_key()))[0] is Reason.DEPENDENCY_UNAVAILABLE
    assert (await ring.identify(key)).tenant == "bees"
    shelf.gate.set()
    assert all(
        isinstance(it, ServiceError) for it in await asyncio.gather(*calls, return_exceptions=True)
    )


async def test_the_operators_keys_come_from_a_file_that_may_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_files, "LOOK_SECONDS", 0.0)
    one, two, file = new_key(), new_key(), tmp_path / "keys"
    file.write_text(one.text + "\n")
    ring = KeyRing(None, AccessSettings(key_file=file, operators="ops"))
    assert await ring.identify(one) == Identity("ops", one.id, Scope.ADMIN)
    assert (await reason_of(ring, two))[0] is Reason.UNAUTHENTICATED
    assert (await reason_of(ring, ApiKey(one.id, two.secret)))[0] is Reason.UNAUTHENTICATED
    file.write_text(f"{one.text}\n{two.text}\n")
    assert (await ring.identify(two)).key == two.id
    file.write_text("no key")
    assert (await ring.identify(two)).key == two.id
    file.write_text(two.text)
    assert (await reason_of(ring, one))[0] is Reason.UNAUTHENTICATED


async def test_a_file_that_could_not_be_read_for_a_moment_is_read_again_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_files, "LOOK_SECONDS", 0.0)
    one, two, file = new_key(), new_key(), tmp_path / "keys"
    file.write_text(one.text)
    ring = KeyRing(None, AccessSettings(key_file=file, operators="ops"))
    with monkeypatch.context() as broken:

        def fails(*_: Any, **__: Any) -> str:
            raise PermissionError

        file.write_text(f"{one.text}\n{two.text}\n")
        broken.setattr(Path, "read_text", fails)
        assert await ring.identify(one)
        assert (await reason_of(ring, two))[0] is Reason.UNAUTHENTICATED
    assert (await ring.identify(two)).key == two.id


Keep = Callable[..., Gatekeeper]


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


async def refusal(gatekeeper: Gatekeeper, method: str, *headers: str | bytes) -> ServiceError:
    with pytest.raises(ServiceError) as refused:
        await gatekeeper.identify(method, [("authorization", it) for it in headers])
    return refused.value


async def test_a_call_without_a_key_is_refused_unless_the_gateway_is_open(shelf: Shelf) -> None:
    ring = KeyRing(shelf, AccessSettings())
    closed, opened = Gatekeeper("keys", ring), Gatekeeper("open", ring)
    assert (await refusal(closed, ASK)).reason is Reason.UNAUTHENTICATED
    assert await opened.identify(ASK, []) == Identity("default", "", Scope.ADMIN)
    # A wrong credential is a mistake in either mode.
    assert (await refusal(opened, ASK, f"Bearer {new_key().text}")).reason is Reason.UNAUTHENTICATED


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        "qk_",
        b"Bearer x",
        "Bearer qk_a_b",
        "Bearer a.b.c",
    ],
)
async def test_other_headers_are_refused(shelf: Shelf, header: str | bytes) -> None:
    gatekeeper = Gatekeeper("keys", KeyRing(shelf, AccessSettings()))
    assert (await refusal(gatekeeper, ASK, header)).reason is Reason.UNAUTHENTICATED
    assert shelf.asked == 0


async def test_a_mistyped_key_is_told_from_a_wrong_one_without_a_lookup(shelf: Shelf) -> None:
    gatekeeper = Gatekeeper("keys", KeyRing(shelf, AccessSettings()))
    text = shelf.add().text
    swapped = "a" if text[30] != "a" else "b"
    error = await refusal(gatekeeper, ASK, f"Bearer {text[:30]}{swapped}{text[31:]}")
    assert "mistyped" in error.message
    assert shelf.asked == 0
    two = await refusal(gatekeeper, ASK, f"Bearer {text}", f"Bearer {text}")
    assert two.reason is Reason.UNAUTHENTICATED
    assert (await gatekeeper.identify(ASK, [("authorization", f"bearer {text}")])).tenant == "bees"


async def test_a_key_does_what_its_scope_includes(shelf: Shelf) -> None:
    gatekeeper = Gatekeeper("keys", KeyRing(shelf, AccessSettings()))
    for scope in Scope:
        header = [("authorization", f"Bearer {shelf.add(scope=scope).text}")]
        for method, needed in scopes.NEEDED.items():
            if scopes.includes(scope, needed):
                assert (await gatekeeper.identify(method, header)).scope is scope
            else:
                with pytest.raises(ServiceError) as refused:
                    await gatekeeper.identify(method, header)
                assert refused.value.reason is Reason.PERMISSION_DENIED
                assert refused.value.metadata == {"needed": needed, "granted": scope}


def test_every_method_of_every_service_of_the_gateway_has_a_scope() -> None:
    from quintet_gateway.access.servicer import SERVICE as KEYS
    from quintet_gateway.links.servicer import SERVICE as LINKS

    assert {KEYS, LINKS} <= {method.rpartition("/")[0] for method in scopes.NEEDED}
    own = [
        importlib.import_module(f"quintet.gateway.v1.{module.name}")
        for module in pkgutil.iter_modules(quintet.gateway.v1.__path__)
        if module.name.endswith("_pb2")
    ]
    methods = {
        f"{service.full_name}/{method.name}"
        for file in (*own, cache_service_pb2, status_service_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert set(scopes.NEEDED) == methods
    assert scopes.needed("quintet.gateway.v1.GatewayService/Unheard") is Scope.ADMIN


def test_every_service_but_those_of_keys_and_of_how_things_are_is_limited() -> None:
    services = {method.rpartition("/")[0] for method in scopes.NEEDED}
    assert services - set(LIMITED) == {
        "quintet.gateway.v1.KeyService",
        "quintet.status.v1.StatusService",
    }


def test_tokens_are_taken_of_one_issuer_for_one_audience_by_a_private_key_alone() -> None:
    with pytest.raises(ValueError, match="name both"):
        AccessSettings(jwt=JwtSettings(jwks="https://x/jwks", issuer="x"))
    for algorithm in ("HS256", "none"):
        with pytest.raises(ValueError, match="algorithms"):
            JwtSettings.model_validate({"algorithms": [algorithm]})


async def test_who_makes_keys_up_does_not_keep_revoked_ones_alive() -> None:
    shelf = Shelf()
    key = shelf.add()
    ring = KeyRing(shelf, AccessSettings(max_lookups=4, fresh_seconds=0.01))
    await ring.identify(key)
    # Its look-up is not held up; those of keys that nobody knows fill all places.
    shelf.hanging.clear()
    calls = [asyncio.create_task(ring.identify(new_key())) for _ in range(4)]
    await asyncio.sleep(0.02)
    shelf.records[key.id] = replace(shelf.records[key.id], revoked=datetime.now(UTC))
    assert (await reason_of(ring, key))[1] == "the API key was revoked"
    shelf.hanging.set()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_keys_that_are_doubted_are_looked_up_again_and_work_with_the_database_away() -> None:
    shelf = Shelf()
    key, revoked = shelf.add(), shelf.add()
    ring = KeyRing(shelf, AccessSettings())
    for each in (key, revoked):
        await ring.identify(each)
    # A look-up from before the doubt does not count as one after it.
    shelf.gate.clear()
    ring.forget(revoked.id)
    early = asyncio.create_task(ring.identify(revoked))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert shelf.asked == 3
    shelf.records[revoked.id] = replace(shelf.records[revoked.id], revoked=datetime.now(UTC))
    ring.doubt()
    shelf.gate.set()
    await early
    assert (await reason_of(ring, revoked))[1] == "the API key was revoked"
    shelf.error = AWAY
    assert (await ring.identify(key)).tenant == "bees"
    shelf.error = None
