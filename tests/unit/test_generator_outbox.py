"""When what a model decoded is told."""

from __future__ import annotations

from quintet_generator.batch_messages import Progress, Told, told, told_line
from quintet_generator.batch_outbox import Outbox


def gave(request: int, *tokens: int, end: bool = False) -> Progress:
    return Progress(request, list(tokens), [-0.5] * len(tokens), "done" if end else None)


def test_first_tokens_are_told_at_once() -> None:
    outbox = Outbox(0.1)
    for request in (1, 2):
        outbox.add([gave(request, 7)])
        assert outbox.take(10.0) == Told(1, [gave(request, 7)])


def test_further_tokens_wait_and_go_together() -> None:
    outbox = Outbox(0.1)
    outbox.add([gave(1, 7)])
    assert outbox.take(10.0)
    outbox.add([gave(1, 8)])
    assert outbox.take(10.05) is None
    outbox.add([gave(1, 9)])
    assert outbox.take(10.11) == Told(2, [gave(1, 8, 9)])


def test_an_end_is_told_at_once_with_all_that_waits() -> None:
    outbox = Outbox(60)
    outbox.add([gave(1, 7), gave(2, 5)])
    assert outbox.take(10.0)
    outbox.add([gave(1, 8), gave(2, 6)])
    outbox.add([gave(1, 9, end=True)])
    assert outbox.take(10.01) == Told(2, [gave(1, 8, 9, end=True), gave(2, 6)])


def test_steps_that_gave_nothing_are_counted_with_the_next() -> None:
    outbox = Outbox(0)
    outbox.add([])
    assert outbox.take(10.0) is None
    outbox.add([gave(1, 7)])
    assert outbox.take(10.0) == Told(2, [gave(1, 7)])


def test_nothing_is_told_of_one_that_was_dropped() -> None:
    outbox = Outbox(60)
    outbox.add([gave(1, 7)])
    assert outbox.take(10.0)
    outbox.add([gave(1, 8)])
    outbox.drop(1)
    assert outbox.take(1e9) is None


def test_with_no_seconds_every_step_is_told() -> None:
    outbox = Outbox(0)
    for token in range(3):
        outbox.add([gave(1, token)])
        assert outbox.take(10.0) == Told(1, [gave(1, token)])


def test_what_is_told_is_read_back_as_it_was() -> None:
    news = Told(3, [gave(1, 7, 8), gave(2, end=True)])
    assert told(told_line(news)) == news
