"""Tokens of an identity provider, whose keys a real HTTP server publishes."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from quintet_gateway.access import jwks as jwks_module
from quintet_gateway.access.jwks import JwksKeys
from quintet_gateway.access.settings import JwtSettings
from quintet_gateway.access.tokens import ProviderTokens
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.identity import Identity, Scope

ISSUER, AUDIENCE = "https://login.example", "quintet"


class Provider:
    """Publishes keys, and counts who fetches them; `status` and `body` break it."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}
        self.fetches = 0
        self.status = 200
        self.body: bytes | None = None
        self.drips = False
        self.at_once = 0
        self.answers = threading.Event()
        self.answers.set()

    def add_rsa(self, name: str) -> None:
        self.keys[name] = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def document(self) -> bytes:
        if self.body is not None:
            return self.body
        published = []
        for name, key in self.keys.items():
            family = jwt.algorithms.ECAlgorithm if self.is_ec(name) else jwt.algorithms.RSAAlgorithm
            published.append({**family.to_jwk(key.public_key(), as_dict=True), "kid": name})
        return json.dumps({"keys": published}).encode()

    def is_ec(self, name: str) -> bool:
        return isinstance(self.keys[name], ec.EllipticCurvePrivateKey)

    def token(self, key: str = "one", **others: Any) -> str:
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "ann",
            "exp": int(time.time()) + 300,
            "tenant": "bees",
            "scope": "openid quintet:read",
            **others,
        }
        algorithm = "ES256" if self.is_ec(key) else "RS256"
        return jwt.encode(claims, self.keys[key], algorithm, headers={"kid": key})


@pytest.fixture
def provider() -> Iterator[tuple[Provider, str]]:
    it = Provider()
    it.add_rsa("one")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            it.fetches += 1
            it.answers.wait(10)
            self.send_response(it.status)
            if it.status == 302:
                self.send_header("Location", "/elsewhere")
            self.end_headers()
            if not it.drips:
                self.wfile.write(it.document())
                return
            it.at_once += 1
            try:
                while it.drips:
                    self.wfile.write(b" ")
                    time.sleep(0.05)
            except OSError:
                pass  # Its caller has had enough.
            finally:
                it.at_once -= 1

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield it, f"http://127.0.0.1:{server.server_port}/jwks"
    it.answers.set()
    server.shutdown()
    thread.join()
    server.server_close()


def settings(jwks: str, **others: Any) -> JwtSettings:
    bounds = {"least_seconds": 0.0, "fetch_seconds": 2.0, **others}
    return JwtSettings(jwks=jwks, issuer=ISSUER, audience=AUDIENCE, **bounds)


def tokens_of(jwks: str, **others: Any) -> ProviderTokens:
    wanted = settings(jwks, **others)
    tokens: list[ProviderTokens] = []
    tokens.append(ProviderTokens(JwksKeys(wanted, lambda: tokens[0].forget()), wanted))
    return tokens[0]


def _by_shared_secret(claims: dict[str, Any], secret: bytes) -> str:
    """Sign by HMAC with what is public, as a library that trusts `alg` would accept."""

    def part(content: bytes) -> str:
        return base64.urlsafe_b64encode(content).rstrip(b"=").decode()

    head = part(json.dumps({"alg": "HS256", "typ": "JWT", "kid": "one"}).encode())
    signed = f"{head}.{part(json.dumps(claims).encode())}"
    return f"{signed}.{part(hmac.digest(secret, signed.encode(), 'sha256'))}"


async def refusal(tokens: ProviderTokens, token: str) -> tuple[Reason, str]:
    with pytest.raises(ServiceError) as refused:
        await tokens.identify(token)
    return refused.value.reason, refused.value.message


async def test_a_token_names_tenant_subject_and_scope(provider: tuple[Provider, str]) -> None:
    it, url = provider
    it.keys["curve"] = ec.generate_private_key(ec.SECP256R1())
    tokens = tokens_of(url)
    assert await tokens.identify(it.token()) == Identity("bees", "ann", Scope.READ)
    wide = it.token("curve", scope=["quintet:read", "quintet:admin", "quintet:unheard"])
    assert await tokens.identify(wide) == Identity("bees", "ann", Scope.ADMIN)
    fetched = it.fetches
    for _ in range(3):
        await tokens.identify(wide)
    assert it.fetches == fetched


async def test_calls_at_the_same_time_wait_for_one_fetch(provider: tuple[Provider, str]) -> None:
    it, url = provider
    tokens = tokens_of(url)
    it.answers.clear()
    calls = [asyncio.create_task(tokens.identify(it.token(sub=f"s{n}"))) for n in range(30)]
    async with asyncio.timeout(5):
        while not it.fetches:  # noqa: ASYNC110 - another thread counts
            await asyncio.sleep(0.01)
    it.answers.set()
    assert {identity.key for identity in await asyncio.gather(*calls)} == {
        f"s{n}" for n in range(30)
    }
    assert it.fetches == 1


async def test_other_tokens_are_refused(provider: tuple[Provider, str]) -> None:
    it, url = provider
    tokens = tokens_of(url)
    right = it.token()
    stranger = Provider()
    stranger.add_rsa("one")
    public = it.keys["one"].public_key()

    number = public.public_bytes(Encoding.DER, PublicFormat.PKCS1)
    head, _, signature = right.split(".")
    claims = jwt.decode(right, options={"verify_signature": False})
    wrong = {
        "another's signature": stranger.token(),
        "none": jwt.encode(claims, "", "none", headers={"kid": "one"}),
        "the public key as a shared secret": _by_shared_secret(claims, number),
        "another algorithm": jwt.encode(claims, it.keys["one"], "RS384", headers={"kid": "one"}),
        "another body": ".".join((head, it.token(tenant="ants").split(".")[1], signature)),
        "another issuer": it.token(iss="https://evil.example"),
        "another audience": it.token(aud="others"),
        "expired": it.token(exp=int(time.time()) - 60),
        "not yet": it.token(nbf=int(time.time()) + 60),
        "no tenant": it.token(tenant=None),
        "an impossible tenant": it.token(tenant="a/b"),
        "an end beyond all numbers": it.token(exp=10**400),
        "an end that is none": it.token(exp=float("nan")),
        "an end without end": it.token(exp=float("inf")),
        "made in the future": it.token(iat=int(time.time()) + 60),
        "two audiences, none of them ours": it.token(aud=["others", "theirs"]),
        "no token": "a.b.c",
        "too long": right + "x" * 10_000,
    }
    for what, token in wrong.items():
        reason, message = await refusal(tokens, token)
        assert reason is Reason.UNAUTHENTICATED, what
        assert "bees" not in message
    assert (await refusal(tokens, it.token(scope="openid")))[0] is Reason.PERMISSION_DENIED
    # Clocks may be apart.
    assert await tokens.identify(it.token(exp=int(time.time()) - 5))


@pytest.mark.parametrize("subject", ["", "a\0b", "a\nb", "\ud800", "a" * 256, "ä"])
async def test_a_subject_that_nobody_could_store_is_refused(
    provider: tuple[Provider, str], subject: str
) -> None:
    it, url = provider
    reason, message = await refusal(tokens_of(url), it.token(sub=subject))
    assert reason is Reason.UNAUTHENTICATED
    assert "subject" in message


async def test_keys_are_rotated_and_those_taken_away_end_their_tokens(
    provider: tuple[Provider, str],
) -> None:
    it, url = provider
    tokens = tokens_of(url)
    old = it.token()
    await tokens.identify(old)
    it.add_rsa("two")
    assert (await tokens.identify(it.token("two"))).key == "ann"
    del it.keys["one"]
    it.add_rsa("three")
    await tokens.identify(it.token("three"))
    assert (await refusal(tokens, old))[0] is Reason.UNAUTHENTICATED


async def test_made_up_key_names_fetch_seldom(provider: tuple[Provider, str]) -> None:
    it, url = provider
    tokens = tokens_of(url, least_seconds=60)
    await tokens.identify(it.token())
    stranger = Provider()
    for number in range(20):
        stranger.keys[f"made-up-{number}"] = it.keys["one"]
        await refusal(tokens, stranger.token(f"made-up-{number}"))
    assert it.fetches == 1


@pytest.mark.parametrize(
    "broken",
    [
        {"status": 500},
        {"status": 302},
        {"body": b"[]"},
        {"body": b"{" * 10},
        {"body": b"[" * 200_000},
    ],
)
async def test_without_keys_it_cannot_be_found_out_and_is_not_refused(
    provider: tuple[Provider, str], broken: dict[str, Any]
) -> None:
    it, url = provider
    token = it.token()
    tokens = tokens_of(url)
    for name, value in broken.items():
        setattr(it, name, value)
    assert (await refusal(tokens, token))[0] is Reason.DEPENDENCY_UNAVAILABLE
    it.status, it.body = 200, None
    assert await tokens.identify(token)


async def test_a_provider_that_sends_without_end_is_not_read_to_the_end(
    provider: tuple[Provider, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    it, url = provider
    token = it.token()
    monkeypatch.setattr(jwks_module, "MAX_BYTES", 10_000)
    it.body = it.document() + b" " * 20_000
    assert (await refusal(tokens_of(url), token))[0] is Reason.DEPENDENCY_UNAVAILABLE


async def test_a_provider_that_drips_holds_one_thread_and_not_for_long(
    provider: tuple[Provider, str],
) -> None:
    it, url = provider
    token = it.token()
    whole = it.document()
    it.drips = True
    tokens = tokens_of(url, fetch_seconds=0.3)
    began = time.monotonic()
    while it.fetches < 2:
        assert (await refusal(tokens, token))[0] is Reason.DEPENDENCY_UNAVAILABLE
        assert it.at_once <= 1
        assert time.monotonic() - began < 30
    it.drips = False
    async with asyncio.timeout(20):
        while True:
            try:
                assert await tokens.identify(token)
                break
            except ServiceError as error:
                assert error.reason is Reason.DEPENDENCY_UNAVAILABLE
    assert it.document() == whole


async def test_keys_outlast_the_providers_outage(provider: tuple[Provider, str]) -> None:
    it, url = provider
    wanted = settings(url, renew_seconds=1)
    keys = JwksKeys(wanted)
    tokens = ProviderTokens(keys, wanted)
    async with keys.kept_fresh():
        await tokens.identify(it.token())
        it.status = 500
        fetched = it.fetches
        async with asyncio.timeout(10):
            while it.fetches == fetched:  # noqa: ASYNC110 - another thread counts
                await asyncio.sleep(0.05)
        assert await tokens.identify(it.token(sub="bob"))


async def test_keys_may_come_from_a_file(provider: tuple[Provider, str], tmp_path: Path) -> None:
    it, _ = provider
    file = tmp_path / "jwks.json"
    file.write_bytes(it.document())
    assert await tokens_of(str(file)).identify(it.token())
    assert it.fetches == 0


@pytest.mark.parametrize("address", ["http://login.example/jwks", "ftp://localhost/jwks"])
def test_keys_are_not_fetched_in_the_clear(address: str) -> None:
    with pytest.raises(ValueError, match="https"):
        JwksKeys(settings(address))
