"""What the settings say of what is wrong with them: not what may be a password."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from quintet_gateway.settings import Settings as GatewaySettings
from quintet_retriever.settings import Settings as RetrieverSettings

SECRET = "hunter2"


@pytest.mark.parametrize("settings", [GatewaySettings, RetrieverSettings])
@pytest.mark.parametrize("name", ["DATABASE_URL", "OWNER_DATABASE_URL"])
@pytest.mark.parametrize(
    "url",
    [
        f"postgers://u:{SECRET}@h/db",
        f"postgresql://u:{SECRET} {SECRET}@h/db",
        f"postgresql://u:{SECRET}/x@h/db",
    ],
)
def test_a_database_url_that_cannot_be_read_is_told_without_it(
    settings: type[GatewaySettings | RetrieverSettings],
    name: str,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(f"{settings.model_config['env_prefix']}{name}", url)
    with pytest.raises(ValidationError) as refused:
        settings()
    assert "must be a connection URI of PostgreSQL" in str(refused.value)
    assert name.lower() in str(refused.value)
    assert SECRET not in f"{refused.value} {refused.value!r}"


@pytest.mark.parametrize("url", [f"redi://:{SECRET}@h", f"redis://:{SECRET}/x@h:6379"])
def test_a_redis_url_that_cannot_be_read_is_told_without_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUINTET_GATEWAY_CACHE__REDIS_URL", url)
    with pytest.raises(ValidationError, match="must be a URL of Redis") as refused:
        GatewaySettings()
    assert SECRET not in f"{refused.value} {refused.value!r}"


def test_a_part_that_is_of_the_wrong_type_is_told_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QUINTET_GATEWAY_CACHE", f'{{"redis_url": ["redis://:{SECRET}@h"]}}')
    with pytest.raises(ValidationError) as refused:
        GatewaySettings()
    assert "cache.redis_url" in str(refused.value)
    assert SECRET not in f"{refused.value} {refused.value!r}"
