"""A worker's side of the conversation: a line of JSON in, a line of JSON out.

Standard library only. A worker ends with its standard input, so it never outlives the
bench that started it.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

Answer = Callable[..., Any]
"""Takes a request's members as keywords; what it returns is sent back."""


def serve(open_worker: Callable[[], Answer]) -> None:
    """Load, say so, and answer requests until there are no more."""
    # Libraries print what they like to standard output: elsewhere, then.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def reply(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    try:
        answer = open_worker()
    except Exception as error:
        traceback.print_exc()
        reply({"error": f"{type(error).__name__}: {error}"})
        return
    reply({"result": "ready"})
    for line in sys.stdin:
        try:
            reply({"result": answer(**json.loads(line))})
        except Exception as error:
            traceback.print_exc()
            reply({"error": f"{type(error).__name__}: {error}"})
