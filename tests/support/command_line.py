"""The command line, run in the tests' own process against a gateway that records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from quintet_cli.__main__ import main
from support.recorded_gateway import RecordedGateway, recorded_gateway


@dataclass(frozen=True)
class Ran:
    """How a command ended and what it printed."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> dict[str, Any]:
        """The one JSON error on standard error."""
        [line] = self.err.splitlines()
        error: dict[str, Any] = json.loads(line)["error"]
        return error


class Quintet(Protocol):
    """Runs the command line."""

    def __call__(self, *arguments: str) -> Ran: ...


@pytest.fixture
def gateway() -> Iterator[RecordedGateway]:
    with recorded_gateway() as gateway:
        yield gateway


@pytest.fixture
def quintet(
    gateway: RecordedGateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Quintet:
    """The command line in an empty folder, told of the gateway by the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QUINTET_STATE_DIR", raising=False)
    monkeypatch.delenv("QUINTET_TIMEOUT", raising=False)
    monkeypatch.setenv("QUINTET_ADDRESS", gateway.address)

    def run(*arguments: str) -> Ran:
        status = main(arguments)
        printed = capsys.readouterr()
        return Ran(status, printed.out, printed.err)

    return run
