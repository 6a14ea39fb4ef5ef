"""The RPCs of API keys."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import grpc

from quintet.gateway.v1 import key_service_pb2 as pb
from quintet.gateway.v1 import key_service_pb2_grpc as pb_grpc
from quintet_gateway.access.keys import Keys
from quintet_gateway.access.models import KeyRecord
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.identity import Scope, current, is_tenant
from quintet_servicekit.validation import Checks

SERVICE = "quintet.gateway.v1.KeyService"
MAX_NAME_CHARS = 100
MAX_PAGE = 200
DEFAULT_PAGE = 50
MAX_LIFETIME_SECONDS = 10 * 366 * 86_400
MAX_OVERLAP_SECONDS = 90 * 86_400
DEFAULT_OVERLAP_SECONDS = 86_400.0

_ID = re.compile(r"[a-z2-7]{12}")
_SCOPES = {
    pb.KEY_SCOPE_UNSPECIFIED: Scope.READ,
    pb.KEY_SCOPE_READ: Scope.READ,
    pb.KEY_SCOPE_WRITE: Scope.WRITE,
    pb.KEY_SCOPE_ADMIN: Scope.ADMIN,
}
_MESSAGES = {
    Scope.READ: pb.KEY_SCOPE_READ,
    Scope.WRITE: pb.KEY_SCOPE_WRITE,
    Scope.ADMIN: pb.KEY_SCOPE_ADMIN,
}

Context = grpc.aio.ServicerContext[Any, Any]


class KeyServicer(pb_grpc.KeyServiceServicer):
    """See the contract for each method."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def CreateKey(
        self, request: pb.CreateKeyRequest, context: Context
    ) -> pb.CreateKeyResponse:
        checks = Checks()
        checks.text("name", request.name, max_chars=MAX_NAME_CHARS)
        _check_tenant(checks, request.tenant)
        if request.scope not in _SCOPES:
            checks.refuse("scope", "must be one of KeyScope")
        seconds = None
        if request.HasField("lifetime"):
            seconds = request.lifetime.ToMilliseconds() / 1000
            checks.number("lifetime", seconds, least=1, most=MAX_LIFETIME_SECONDS)
        checks.done()
        key, record = await self._keys.create(
            current(),
            request.tenant,
            name=request.name,
            scope=_SCOPES[request.scope],
            seconds=seconds,
        )
        return pb.CreateKeyResponse(secret_key=key.text, key=_message(record))

    async def ListKeys(self, request: pb.ListKeysRequest, context: Context) -> pb.ListKeysResponse:
        checks = Checks()
        _check_tenant(checks, request.tenant)
        checks.number("page_size", request.page_size, least=0, most=MAX_PAGE)
        checks.done()
        if request.page_token and not _ID.fullmatch(request.page_token):
            raise ServiceError(Reason.INVALID_PAGE_TOKEN, "the page token is damaged")
        size = request.page_size or DEFAULT_PAGE
        found = await self._keys.page(
            current(), request.tenant, after=request.page_token, size=size + 1
        )
        more = found[size - 1].id if len(found) > size else ""
        return pb.ListKeysResponse(
            keys=[_message(record) for record in found[:size]], next_page_token=more
        )

    async def RevokeKey(
        self, request: pb.RevokeKeyRequest, context: Context
    ) -> pb.RevokeKeyResponse:
        _check_key(request.key_id, request.tenant)
        record = await self._keys.revoke(current(), request.tenant, request.key_id)
        return pb.RevokeKeyResponse(key=_message(record))

    async def RotateKey(
        self, request: pb.RotateKeyRequest, context: Context
    ) -> pb.RotateKeyResponse:
        _check_key(request.key_id, request.tenant)
        overlap = DEFAULT_OVERLAP_SECONDS
        if request.HasField("overlap"):
            overlap = request.overlap.ToMilliseconds() / 1000
            checks = Checks()
            checks.number("overlap", overlap, least=0, most=MAX_OVERLAP_SECONDS)
            checks.done()
        key, record, old = await self._keys.rotate(
            current(), request.tenant, request.key_id, overlap=overlap
        )
        return pb.RotateKeyResponse(
            secret_key=key.text, key=_message(record), old_key=_message(old)
        )


def _check_tenant(checks: Checks, tenant: str) -> None:
    if tenant and not is_tenant(tenant):
        checks.refuse("tenant", "must be 1 to 63 of a-z, 0-9 and hyphens")


def _check_key(key_id: str, tenant: str) -> None:
    checks = Checks()
    _check_tenant(checks, tenant)
    if not _ID.fullmatch(key_id):
        checks.refuse("key_id", "must be the 12 characters after qk_")
    checks.done()


def _message(record: KeyRecord) -> pb.Key:
    message = pb.Key(
        id=record.id,
        tenant=record.tenant,
        name=record.name,
        scope=_MESSAGES[record.scope],
        replaces=record.replaces,
    )
    times: dict[str, datetime | None] = {
        "created": record.created,
        "expires": record.expires,
        "revoked": record.revoked,
    }
    for name, time in times.items():
        if time is not None:
            getattr(message, name).FromDatetime(time)
    return message
