"""Which scope each of the gateway's methods needs. The one table of it."""

from __future__ import annotations

from quintet_servicekit.identity import Scope

_GATEWAY = "quintet.gateway.v1.GatewayService"
_LINKS = "quintet.gateway.v1.LinkService"
_EXPLAIN = "quintet.gateway.v1.ExplainService"
_USAGE = "quintet.gateway.v1.UsageService"
_FEEDBACK = "quintet.gateway.v1.FeedbackService"
_KEYS = "quintet.gateway.v1.KeyService"
_CACHE = "quintet.cache.v1.CacheService"
_STATUS = "quintet.status.v1.StatusService"

_METHODS: dict[str, dict[Scope, str]] = {
    _GATEWAY: {
        Scope.READ: "Ask AskStream Search GetDocument ListDocuments GetCollection ListCollections"
        " GetStatus GetCacheStats ExplainCache",
        Scope.WRITE: "Ingest DeleteDocument CreateCollection DeleteCollection",
        Scope.ADMIN: "ReembedCollection PurgeCache",
    },
    _LINKS: {
        Scope.READ: "ListLinks ListDanglingLinks SuggestLinks Related",
        Scope.WRITE: "CreateLink DeleteLink AcceptSuggestion DismissSuggestion RenameDocument",
    },
    _EXPLAIN: {Scope.READ: "Explain"},
    _USAGE: {Scope.READ: "GetUsage"},
    _FEEDBACK: {Scope.READ: "RateAnswer", Scope.ADMIN: "GetFeedback"},
    _KEYS: {Scope.ADMIN: "CreateKey ListKeys RevokeKey RotateKey"},
    # The gateway's own, beside those that it asks of the services.
    _CACHE: {Scope.ADMIN: "GetStats Purge"},
    _STATUS: {Scope.READ: "ListBreakers"},
}

NEEDED = {
    f"{service}/{method}": scope
    for service, scopes in _METHODS.items()
    for scope, methods in scopes.items()
    for method in methods.split()
}
"""Scope by method, as in "quintet.gateway.v1.GatewayService/Ask"."""

_RANK = {Scope.READ: 0, Scope.WRITE: 1, Scope.ADMIN: 2}


def needed(method: str) -> Scope:
    """Return the scope that a method needs; one that nobody listed needs the highest."""
    return NEEDED.get(method, Scope.ADMIN)


def rank(scope: Scope) -> int:
    """Return how much a scope allows; each includes those below it."""
    return _RANK[scope]


def includes(granted: Scope, wanted: Scope) -> bool:
    """Whether who has `granted` may do what needs `wanted`."""
    return rank(granted) >= rank(wanted)
