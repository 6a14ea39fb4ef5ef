"""The retriever's settings come from its variables and keep their secret."""

from __future__ import annotations

import pytest

from quintet_retriever.settings import Settings


def test_the_databases_password_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://user:hidden@db/name"
    monkeypatch.setenv("QUINTET_RETRIEVER_DATABASE_URL", url)
    settings = Settings()
    assert settings.database_url.get_secret_value() == url
    assert "hidden" not in f"{settings!r} {settings} {settings.model_dump_json()}"
