"""What all services' settings have in common."""

from __future__ import annotations

import pytest

from quintet_embedder.settings import Settings as EmbedderSettings
from quintet_gateway.settings import Settings as GatewaySettings
from quintet_generator.settings import GeneratorSettings
from quintet_retriever.settings import Settings as RetrieverSettings
from quintet_servicekit.cache import CacheSettings
from quintet_tokenizer.settings import Settings as TokenizerSettings

ALL = {
    "tokenizer": TokenizerSettings,
    "embedder": EmbedderSettings,
    "retriever": RetrieverSettings,
    "generator": GeneratorSettings,
    "gateway": GatewaySettings,
}


@pytest.mark.parametrize("service", ALL)
def test_a_service_takes_its_caches_address_from_its_environment(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"QUINTET_{service.upper()}_CACHE__REDIS_URL", "redis://there:1/0")
    settings = ALL[service]()
    assert isinstance(settings.cache, CacheSettings)
    assert settings.cache.redis_url.get_secret_value() == "redis://there:1/0"


@pytest.mark.parametrize("service", ALL)
def test_an_address_for_the_cache_leaves_its_other_settings_as_the_service_has_them(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service's own default, a day for answers, must not give way to the kit's."""
    before = ALL[service]().cache.ttl_seconds
    monkeypatch.setenv(f"QUINTET_{service.upper()}_CACHE__REDIS_URL", "redis://there:1/0")
    assert ALL[service]().cache.ttl_seconds == before
