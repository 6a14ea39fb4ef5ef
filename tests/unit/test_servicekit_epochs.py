"""What a replica knows of epochs, without any Redis."""

from __future__ import annotations

import json
import time

from quintet_servicekit.consistency import Epoch
from quintet_servicekit.epochs import EpochWatch, Mark


def trusting_watch() -> tuple[EpochWatch, Mark]:
    """Return a watch that follows and trusts, and a mark of now."""
    watch = EpochWatch()
    watch._live = True
    watch._take(json.dumps({"kind": "trust", "until": time.time() + 60}).encode())
    mark = watch.mark()
    assert mark is not None
    return watch, mark


def test_a_replica_knows_at_once_what_it_wrote_itself() -> None:
    watch, mark = trusting_watch()
    watch.note("notes", Epoch(1, 4), mark)
    watch.told("notes", Epoch(1, 5))
    assert watch.known("notes") == Epoch(1, 5)


def test_news_that_come_late_take_nothing_back() -> None:
    watch, mark = trusting_watch()
    watch.note("notes", Epoch(1, 4), mark)
    watch.told("notes", Epoch(1, 5))
    watch.told("notes", Epoch(1, 3))
    assert watch.known("notes") == Epoch(1, 5)


def test_news_alone_prove_nothing() -> None:
    watch, mark = trusting_watch()
    watch.told("notes", Epoch(1, 5))
    assert watch.known("notes") is None
    watch.note("notes", Epoch(1, 4), mark)
    assert watch.known("notes") == Epoch(1, 5)
