"""Going on with an answer whose writer, in another replica, is gone.

The request is deterministic, so the answer is written anew, and what the caller already
has is left out.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from quintet_generator.models import Citation, Event, Finished, TextDelta
from quintet_servicekit.errors import Reason, ServiceError

Join = Callable[[bool], AsyncGenerator[Event]]
"""Joins the writing of the answer, of whatever replica if it is true, else in this one."""


async def resumed(join: Join) -> AsyncGenerator[Event]:
    """Yield the answer of any replica, and if its writer is lost, of this one.

    Raises what the writing raises, and the writer's loss if the new answer begins
    otherwise: the same model differs in the last digits where it has read a part of the
    prompt before.
    """
    text, citations = "", 0
    try:
        async with aclosing(join(True)) as events:
            async for event in events:
                match event:
                    case TextDelta():
                        text += event.text
                    case Citation():
                        citations += 1
                yield event
        return
    except ServiceError as error:
        if not is_lost(error):
            raise
        lost = error
    async with aclosing(join(False)) as events:
        async for event in events:
            match event:
                case TextDelta() if text:
                    had, new = text, event.text
                    if not (had.startswith(new) or new.startswith(had)):
                        raise lost
                    text = had[len(new) :]
                    if len(new) > len(had):
                        yield TextDelta(new[len(had) :])
                case Citation() if citations:
                    citations -= 1
                case Finished() if text:
                    raise lost
                case _:
                    yield event


def is_lost(error: ServiceError) -> bool:
    """Tell whether the error is that of `Flights.join` for a writer who is gone."""
    return (
        error.reason is Reason.DEPENDENCY_UNAVAILABLE
        and error.metadata.get("dependency") == "leader"
    )
