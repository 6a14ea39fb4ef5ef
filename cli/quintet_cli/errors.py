"""How failures are told: one line, with the reason and what to do next.

A `ServiceError` from the gateway and a `CliError` of our own look the same to
people and to scripts. Imported for `--help`: keep it light.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from quintet_servicekit.errors import ServiceError

KEY_ADVICE = (
    "name a file with your key by --key-file or QUINTET_API_KEY_FILE; who operates the gateway "
    "makes one with: quintet keys create NAME"
)

FAILED, USAGE, INTERRUPTED = 1, 2, 130
"""Exit statuses, besides 0."""


class CliError(Exception):
    """A failure on this side of the wire.

    `advice` says what to do next. `usage` tells that the command line itself
    was wrong.
    """

    def __init__(
        self, message: str, *, reason: str = "FAILED", advice: str = "", usage: bool = False
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = "USAGE" if usage else reason
        self.advice = advice
        self.status = USAGE if usage else FAILED


@contextmanager
def reported(*, as_json: bool) -> Iterator[None]:
    """Turn a failure within into its report on standard error and an exit status."""
    try:
        yield
    except KeyboardInterrupt:
        if not as_json:
            print("interrupted", file=sys.stderr)  # noqa: T201
        raise typer.Exit(INTERRUPTED) from None
    except CliError as error:
        report(error, as_json=as_json)
        raise typer.Exit(error.status) from None
    except BrokenPipeError:
        raise  # the reader of our output left; typer ends quietly
    except Exception as error:
        # Imported late: it loads gRPC, which whoever got here has loaded already.
        from quintet_servicekit.errors import ServiceError

        if not isinstance(error, ServiceError):
            raise
        report(_from_service(error), as_json=as_json, metadata=error.metadata)
        raise typer.Exit(FAILED) from None


def report(error: CliError, *, as_json: bool, metadata: Mapping[str, str] | None = None) -> None:
    """Print an error to standard error, as one line."""
    if as_json:
        body = {
            "reason": error.reason,
            "message": error.message,
            "advice": error.advice,
            "metadata": dict(metadata or {}),
        }
        typer.echo(json.dumps({"error": body}, ensure_ascii=False), err=True)
        return
    line = typer.style("error: ", fg="red", bold=True) + error.message
    if error.reason not in ("FAILED", "USAGE"):
        line += f" [{error.reason}]"
    if error.advice:
        line += f"; {error.advice}"
    typer.echo(line.replace("\n", " "), err=True)


_ADVICE = {
    "COLLECTION_NOT_FOUND": (
        "list what is there with: quintet collections; "
        "fill a new one with: quintet ingest PATH --collection NAME"
    ),
    "DOCUMENT_NOT_FOUND": "list what is there with: quintet documents --collection NAME",
    "MODEL_NOT_FOUND": "list the models with: quintet status",
    "NO_PASSAGES": (
        "nothing there speaks of it, so there is no answer: ask in other words, "
        "or bring in documents with: quintet ingest PATH"
    ),
    "ANSWER_NOT_FOUND": (
        "records are kept for some days; the newest of yours is found with: quintet explain --last"
    ),
    "NO_DATABASE": "name one in QUINTET_GATEWAY_DATABASE_URL, for the gateway",
    "OVERLOADED": "try again in a moment",
    "CIRCUIT_OPEN": "it failed again and again; try again in a moment, or see quintet status",
    "NOT_READY": "it is starting or stopping: see quintet status",
    "DEADLINE_EXCEEDED": "give it longer with --timeout SECONDS",
    "UNIMPLEMENTED": "the gateway and this command are of different versions",
    "CONFLICT": "try again",
    "UNAUTHENTICATED": KEY_ADVICE,
    "PERMISSION_DENIED": "use a key with a wider scope: quintet keys create NAME --scope SCOPE",
    "KEY_NOT_FOUND": "list them with: quintet keys list",
}

_UNREACHABLE = (
    "is the stack running? Start it with: quintet up; or name another gateway with --address"
)


def _from_service(error: ServiceError) -> CliError:
    reason = error.reason.value
    advice = _ADVICE.get(reason, "")
    if reason == "DEPENDENCY_UNAVAILABLE":
        away = error.metadata.get("dependency", "")
        advice = _UNREACHABLE if away == "gateway" else "see which service is away: quintet status"
    elif reason == "TEMPLATE_NOT_FOUND":
        advice = f"there are: {error.metadata.get('known', '').replace(',', ', ')}"
    elif reason == "RATE_LIMITED":
        pause = math.ceil(error.retry_after or 0)
        advice = f"try again in {pause} s; the limit is {error.metadata.get('limit', 'unknown')}"
    elif reason == "BUDGET_EXHAUSTED":
        advice = "see what is spent, and when the period ends: quintet usage"
    elif reason == "INTERNAL" and "trace_id" in error.metadata:
        advice = f"its cause is in the services' log, under trace {error.metadata['trace_id']}"
    elif any(violation.field.startswith("consistency") for violation in error.violations):
        advice = "take the token that a write to this very collection told, or give --fresh"
    message = error.message
    if len(error.violations) > 1:
        message = "; ".join(f"{v.field} {v.description}" for v in error.violations)
    return CliError(message, reason=reason, advice=advice)
