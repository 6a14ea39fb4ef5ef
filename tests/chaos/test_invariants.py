"""The model that answers are held to: it lets the truth pass, and each kind of lie not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from chaos.documents import Question, Version
from chaos.invariants import Answer, Call, faults
from chaos.ledger import NOTHING, Ledger
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_servicekit.consistency import Epoch, encode_token

NAME = "c"
QUESTION = Question("violin?", retriever_pb.SEARCH_MODE_LEXICAL, 5, "violin", only=True)
OLD = Version("violin-a", "violin", "north", "mark000001")
NEW = Version("violin-a", "violin", "north", "mark000002")
OTHER = Version("penguin-a", "penguin", "north", "mark000003")


def at(number: int) -> Epoch:
    return Epoch(1, number)


@pytest.fixture
def ledger() -> Ledger:
    """Epoch 1: OLD is written; 2: OTHER; 3: NEW; 4: it is deleted."""
    found = Ledger(NAME)
    for number, version in enumerate((OLD, OTHER, NEW, None), start=1):
        document = version.document if version else OLD.document
        write = found.begin(document, version, "gateway", float(number))
        found.acknowledge(encode_token(NAME, at(number)), "gateway", number + 0.5, write)
    return found


def answer(epoch: Epoch | None, *versions: Version, least: Epoch = NOTHING) -> Answer:
    call = Call(QUESTION, "Ask", "gateway", "at_least_as_fresh", 10.0, least, least)
    passages = [(version.document, version.content) for version in versions]
    return Answer(call, 10.1, epoch, "l1 hit", kept=True, passages=passages)


def told(ledger: Ledger, what: Answer) -> Sequence[str]:
    return list(faults(ledger, what))


def test_the_state_of_each_epoch_passes(ledger: Ledger) -> None:
    assert told(ledger, answer(at(1), OLD)) == []
    assert told(ledger, answer(at(2), OLD)) == []
    assert told(ledger, answer(at(3), NEW)) == []
    assert told(ledger, answer(at(4))) == []


def test_an_answer_from_before_its_token_is_caught(ledger: Ledger) -> None:
    assert told(ledger, answer(at(2), OLD, least=at(3)))


@pytest.mark.parametrize(("number", "version"), [(3, OLD), (4, NEW), (2, NEW), (2, OTHER)])
def test_a_passage_that_is_not_of_its_epoch_or_question_is_caught(
    ledger: Ledger, number: int, version: Version
) -> None:
    assert told(ledger, answer(at(number), version))


def test_a_document_that_is_missing_is_caught(ledger: Ledger) -> None:
    assert told(ledger, answer(at(3)))


def test_nothing_was_found_passes_only_if_nothing_could_be_there(ledger: Ledger) -> None:
    nothing = replace(answer(None), outcome="nothing")
    assert told(ledger, nothing) == []
    again = ledger.begin(NEW.document, NEW, "gateway", 5.0)
    ledger.acknowledge(encode_token(NAME, at(5)), "gateway", 5.5, again)
    late = replace(nothing, call=replace(nothing.call, least=at(5), least_kept=at(5)))
    assert told(ledger, nothing) == []
    assert told(ledger, late)


def test_a_write_of_unknown_outcome_counts_as_both(ledger: Ledger) -> None:
    write = ledger.begin(NEW.document, NEW, "gateway", 5.0)
    ledger.learn(encode_token(NAME, at(6)))
    assert ledger.settled_until == 5.0
    assert told(ledger, answer(at(6))) == told(ledger, answer(at(6), NEW)) == []
    ledger.settle(encode_token(NAME, at(6)), False, write)
    assert told(ledger, answer(at(6), NEW))


def test_an_answer_that_is_not_of_its_passages_is_caught(ledger: Ledger) -> None:
    right = replace(answer(at(3), NEW), text=NEW.content)
    assert told(ledger, right) == []
    assert told(ledger, replace(right, text=OLD.content))


def test_a_citation_that_is_not_of_its_source_is_caught(ledger: Ledger) -> None:
    right = pb.Citation(passage=1, document_id=NEW.document, answer_end=9, document_end=9)
    wrong = pb.Citation(passage=1, document_id=NEW.document, answer_end=9, document_end=8)
    other = pb.Citation(passage=1, document_id=OTHER.document, answer_end=9, document_end=9)
    missing = pb.Citation(passage=2, document_id=NEW.document, answer_end=9, document_end=9)
    found = replace(answer(at(3), NEW), text=NEW.content)
    assert told(ledger, replace(found, citations=[right])) == []
    for citation in (wrong, other, missing):
        assert told(ledger, replace(found, citations=[citation]))


def test_what_may_be_stale_is_never_served_to_who_wants_it_fresh(ledger: Ledger) -> None:
    stale = replace(answer(at(1), OLD, least=at(4)), stale=True)
    assert told(ledger, stale)
    weak = replace(stale, call=replace(stale.call, consistency="minimize_latency"))
    assert told(ledger, weak) == []


def test_what_was_declared_out_of_date_is_caught(ledger: Ledger) -> None:
    ledger.declare_outdated(encode_token(NAME, at(5)), 9.0)
    kept = replace(answer(at(5)), age=1.0)
    assert told(ledger, kept) == []
    entitled = replace(kept, call=replace(kept.call, least=at(5), least_kept=at(5)))
    assert told(ledger, entitled) == []
    assert told(ledger, replace(entitled, age=2.0))
    assert told(ledger, replace(kept, age=2.0)) == []


def test_a_replica_must_know_its_own_writes_at_once_and_others_after_the_lease(
    ledger: Ledger,
) -> None:
    write = ledger.begin(NEW.document, NEW, "gateway", 20.0)
    ledger.acknowledge(encode_token(NAME, at(5)), "gateway", 20.5, write)
    assert ledger.told("gateway", 20.5) == at(5)
    assert ledger.told("second gateway", 21.9) == at(4)
    assert ledger.told("second gateway", 22.1) == at(5)
    assert ledger.lag(at(4), 21.9) == pytest.approx(1.4)
