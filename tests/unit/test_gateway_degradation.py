"""What may be passed over, and what is told of it."""

from __future__ import annotations

import pytest

from quintet.errors.v1 import error_reason_pb2
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet_gateway.degradation import AWAY, Degradations
from quintet_servicekit.errors import Reason, ServiceError

ABOUT_THE_REQUEST = sorted(set(Reason) - AWAY)


def test_what_is_passed_over_is_told_with_its_cause_and_age() -> None:
    degradations = Degradations()
    error = ServiceError(Reason.CIRCUIT_OPEN, "not called")
    degradations.pass_over(
        "retriever",
        error,
        pb.SUBSTITUTE_STALE_ANSWER,
        "old",
        age_seconds=1.5,
    )
    (told,) = degradations.messages
    assert (told.hop, told.note, told.age.ToMilliseconds()) == ("retriever", "old", 1500)
    assert told.cause == error_reason_pb2.ERROR_REASON_CIRCUIT_OPEN
    assert told.substitute == pb.SUBSTITUTE_STALE_ANSWER
    assert degradations.behind(pb.SUBSTITUTE_STALE_ANSWER) is error
    assert degradations.behind(pb.SUBSTITUTE_LEXICAL_SEARCH) is None


@pytest.mark.parametrize("reason", ABOUT_THE_REQUEST)
def test_a_failure_that_is_about_the_request_is_never_passed_over(reason: Reason) -> None:
    error = ServiceError(reason, "no")
    degradations = Degradations()
    with pytest.raises(ServiceError) as caught:
        degradations.pass_over("embedder", error, pb.SUBSTITUTE_LEXICAL_SEARCH, "")
    assert caught.value is error
    assert not degradations.messages


@pytest.mark.parametrize("reason", sorted(AWAY))
def test_who_forbids_degradations_gets_the_failure(reason: Reason) -> None:
    error = ServiceError(reason, "away")
    assert Degradations().may_replace(error)
    with pytest.raises(ServiceError) as caught:
        Degradations(forbidden=True).pass_over("x", error, pb.SUBSTITUTE_TOKEN_ESTIMATE, "")
    assert caught.value is error
