"""Which key the command line calls with."""

from __future__ import annotations

from pathlib import Path

import pytest

from quintet_cli.connection import api_key
from quintet_cli.errors import CliError
from quintet_cli.settings import Settings, read_key


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


@pytest.mark.parametrize("content", [None, "", "\n"])
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
