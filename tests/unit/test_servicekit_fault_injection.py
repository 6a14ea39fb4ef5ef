"""The syntax of the faults that a caller asks for."""

from __future__ import annotations

import pytest

from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.fault_injection import HEADER, MAX_FAULTS, Fault, parsed


def test_a_header_may_ask_for_several_faults() -> None:
    header = "embedder/Embed;delay=500ms, generator/*;abort=UNAVAILABLE;after=3;percent=20"
    assert parsed(header) == (
        Fault("embedder", "Embed", delay=0.5),
        Fault("generator", "*", abort=Reason.DEPENDENCY_UNAVAILABLE, after=3, percent=20),
    )


def test_a_delay_may_come_before_an_abort() -> None:
    fault = Fault("retriever", "Search", delay=2.0, abort=Reason.DEADLINE_EXCEEDED)
    assert parsed("retriever/Search; delay=2s; abort=DEADLINE_EXCEEDED") == (fault,)


@pytest.mark.parametrize(
    "header",
    [
        "",
        ",",
        "embedder",
        "embedder/Embed",
        "embedder/Embed;percent=5",
        "Embedder/Embed;delay=1s",
        "embedder/Em bed;delay=1s",
        "embedder/Embed;delay=1",
        "embedder/Embed;delay=-1s",
        "embedder/Embed;delay=0ms",
        "embedder/Embed;delay=11s",
        "embedder/Embed;delay=1s;delay=1s",
        "embedder/Embed;delay=1s;after=2",
        "embedder/Embed;abort=OK",
        "embedder/Embed;abort=unavailable",
        "embedder/Embed;abort=UNAVAILABLE;percent=0",
        "embedder/Embed;abort=UNAVAILABLE;percent=101",
        "embedder/Embed;abort=UNAVAILABLE;after=0",
        "embedder/Embed;abort=UNAVAILABLE;wait=1s",
        "embedder/Embed;delay=١s",
        "embedder/Embed;delay=1s,",
        ",".join(["embedder/Embed;delay=1s"] * (MAX_FAULTS + 1)),
        "a" * 100_000,
    ],
)
def test_a_header_that_breaks_the_syntax_or_its_bounds_is_refused(header: str) -> None:
    with pytest.raises(ServiceError) as caught:
        parsed(header)
    assert caught.value.reason is Reason.INVALID_FIELD
    assert [it.field for it in caught.value.violations] == [HEADER]


def test_a_fault_meets_the_method_that_it_is_addressed_to() -> None:
    one, any_method = parsed("embedder/Embed;delay=1s,embedder/*;delay=1s")
    assert one.meets("embedder", "Embed")
    assert not one.meets("embedder", "Rerank")
    assert any_method.meets("embedder", "Rerank")
    assert not any_method.meets("generator", "Embed")
