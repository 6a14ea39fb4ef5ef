"""Which key the command line calls with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quintet.gateway.v1 import key_service_pb2 as pb
from quintet_cli.commands import keys
from quintet_cli.connection import api_key
from quintet_cli.errors import CliError
from quintet_cli.settings import Settings, read_key
from quintet_servicekit.errors import Reason, ServiceError


def test_the_local_stacks_key_goes_to_that_stack_and_to_no_other_address(tmp_path: Path) -> None:
    (tmp_path / "api-key").write_text("local\n")
    assert api_key(Settings(state_dir=tmp_path)) == "local"
    assert api_key(Settings(state_dir=tmp_path, address="far:50050")) == ""
    assert api_key(Settings(state_dir=tmp_path, address="far:50050", api_key="own")) == "own"
    assert api_key(Settings(state_dir=tmp_path, api_key="own")) == "own"


def test_without_a_stack_there_is_no_key(tmp_path: Path) -> None:
    assert api_key(Settings(state_dir=tmp_path)) == ""


def test_a_key_comes_from_the_environment_or_a_file_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    file.write_text(" of-a-file \n")
    monkeypatch.delenv("QUINTET_API_KEY", raising=False)
    monkeypatch.setenv("QUINTET_API_KEY_FILE", str(file))
    assert Settings.from_environment().api_key == "of-a-file"
    monkeypatch.setenv("QUINTET_API_KEY", "of-the-variable")
    settings = Settings.from_environment()
    assert settings.api_key == "of-the-variable"
    assert "of-the-variable" not in repr(settings)


@pytest.mark.parametrize("content", [None, "", "\n", "one\ntwo\n", "schlüssel", "a b"])
def test_a_file_without_a_key_is_told_with_what_to_do_next(
    tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_text(content)
    with pytest.raises(CliError) as refused:
        read_key(file)
    assert refused.value.reason == "NO_KEY"
    assert "quintet keys create" in refused.value.advice


def test_a_variable_that_no_key_can_be_is_told_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUINTET_API_KEY", "one\ntwo")
    with pytest.raises(CliError) as refused:
        Settings.from_environment()
    assert refused.value.reason == "NO_KEY"
    assert "one\ntwo" not in refused.value.message


def test_no_key_is_made_that_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(*_: Any) -> pb.CreateKeyResponse:
        asked.append(True)
        raise ServiceError(Reason.PERMISSION_DENIED, "no")

    asked: list[bool] = []
    monkeypatch.setattr(keys, "_create", failing)
    nowhere, there, new = tmp_path / "none" / "key", tmp_path / "there", tmp_path / "new"
    there.write_text("mine")
    for out in (nowhere, there):
        with pytest.raises(CliError):
            keys.create(Settings(), "a", scope="read", days=None, tenant="", out=out)
    assert not asked
    assert there.read_text() == "mine"
    with pytest.raises(ServiceError):
        keys.create(Settings(), "a", scope="read", days=None, tenant="", out=new)
    assert asked
    assert not new.exists()
