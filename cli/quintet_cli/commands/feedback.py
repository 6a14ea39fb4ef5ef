"""`quintet feedback`: what people think of answers."""

from __future__ import annotations

import asyncio

from quintet.gateway.v1 import explain_service_pb2 as explain_pb
from quintet.gateway.v1 import feedback_service_pb2 as pb
from quintet_cli.connection import connected
from quintet_cli.explanation import short
from quintet_cli.settings import Settings
from quintet_cli.terminal import as_json, console, day, one_line, print_json, shown, table


def rate(settings: Settings, answer_id: str, *, score: int, rater: str, comment: str) -> None:
    """Rate an answer, for an empty id the newest of who uses the key."""
    request = pb.RateAnswerRequest(answer_id=answer_id, score=score, rater=rater, comment=comment)
    asyncio.run(_rate(settings, request))


async def _rate(settings: Settings, request: pb.RateAnswerRequest) -> None:
    async with connected(settings) as gateway:
        if not request.answer_id:
            newest = explain_pb.ExplainRequest()
            found = await gateway.unary("Explain", gateway.explain.Explain, newest)
            request.answer_id = found.record.answer_id
        response = await gateway.unary("RateAnswer", gateway.feedback.RateAnswer, request)
    if settings.json:
        print_json({"answer_id": request.answer_id, **as_json(response)})
        return
    before = ", in place of the rating before" if response.replaced else ""
    console().print(f"{request.answer_id} is rated {request.score}{before}.")
    if request.comment and not response.comment_stored:
        console(stderr=True).print("This server keeps no comments.", style="yellow")


def report(settings: Settings, *, collection: str, days: int, comments: int) -> None:
    """Print how answers were rated, and the newest comments."""
    request = pb.GetFeedbackRequest(collection=collection, days=days, comments=comments)
    asyncio.run(_report(settings, request))


async def _report(settings: Settings, request: pb.GetFeedbackRequest) -> None:
    async with connected(settings) as gateway:
        response = await gateway.unary("GetFeedback", gateway.feedback.GetFeedback, request)
    if settings.json:
        print_json(as_json(response))
        return
    out = console()
    if not response.templates:
        out.print("no ratings; give one with: quintet feedback rate ANSWER_ID --up")
        return
    rows = table("template", "model", ">ratings", *">1 >2 >3 >4 >5".split(), ">mean", ">liked")
    for it in response.templates:
        rows.add_row(
            f"{shown(it.template)} {short(it.template_revision)}",
            f"{shown(it.model)} {short(it.model_revision)}",
            str(sum(it.counts)),
            *map(str, it.counts),
            f"{it.mean:.2f}",
            f"{it.liked:.0%} ({it.liked_low:.0%} to {it.liked_high:.0%})",
        )
    out.print(rows)
    for comment in response.comments:
        out.print(
            f"{day(comment.rated_at)}  {comment.score}  {shown(comment.template)},"
            f" {shown(comment.model)}: {one_line(comment.comment)}"
        )
