"""The kit's small parts: errors, deadlines, the executor, checks."""

import asyncio
import threading

import grpc
import pytest

from quintet.errors.v1 import error_reason_pb2
from quintet_gateway.settings import Settings as GatewaySettings
from quintet_servicekit.deadline import Deadline
from quintet_servicekit.errors import Reason, ServiceError, from_rpc_error, to_status
from quintet_servicekit.executor import BoundedExecutor
from quintet_servicekit.validation import Checks


def test_the_reasons_are_those_of_the_contract() -> None:
    contract = {
        name.removeprefix("ERROR_REASON_")
        for name in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name
    }
    assert set(Reason) == contract - {"UNSPECIFIED"}


@pytest.mark.parametrize("reason", list(Reason))
def test_retryable_errors_and_only_they_say_when_to_retry(reason: Reason) -> None:
    error = ServiceError(reason, "m")
    retryable = error.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert (error.retry_after is not None) == retryable
    assert to_status(error).code == error.code.value[0] != 0


def rpc_error(code: grpc.StatusCode, message: str) -> grpc.aio.AioRpcError:
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(code, nothing, nothing, message, "")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, Reason.DEPENDENCY_UNAVAILABLE),
        (grpc.StatusCode.DEADLINE_EXCEEDED, Reason.DEADLINE_EXCEEDED),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Reason.OVERLOADED),
        (grpc.StatusCode.UNKNOWN, Reason.INTERNAL),
    ],
)
def test_a_foreign_status_becomes_a_reason_and_loses_its_message(
    code: grpc.StatusCode, reason: Reason
) -> None:
    error = from_rpc_error(rpc_error(code, "connect to 10.1.2.3 failed"), service="embedder")
    assert error.reason is reason
    assert "10.1.2.3" not in error.message
    assert "embedder" in error.message


def test_a_deadline_that_has_passed_names_the_hop() -> None:
    with pytest.raises(ServiceError) as caught:
        Deadline.after(-1).remaining("embedder")
    assert caught.value.metadata == {"hop": "embedder"}
    assert 4.5 < Deadline.after(100).or_after(5).remaining("x") <= 5


async def test_the_executor_refuses_work_beyond_its_queue() -> None:
    executor = BoundedExecutor("test", threads=1, queue=1)
    release = threading.Event()
    running = asyncio.create_task(executor.run(release.wait))
    waiting = asyncio.create_task(executor.run(lambda: "done"))
    await asyncio.sleep(0)
    with pytest.raises(ServiceError) as caught:
        await executor.run(lambda: None)
    assert caught.value.reason is Reason.OVERLOADED
    release.set()
    assert await running and await waiting == "done"
    assert await executor.run(lambda: "again") == "again"
    await executor.close()


async def test_a_cancelled_caller_leaves_the_executors_queue() -> None:
    executor = BoundedExecutor("test", threads=1, queue=1)
    release = threading.Event()
    ran: list[int] = []
    running = asyncio.create_task(executor.run(release.wait))
    waiting = asyncio.create_task(executor.run(ran.append, 1))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.sleep(0)
    assert executor.admitted == 1
    release.set()
    await running
    await executor.close()
    assert ran == []


def test_checks_name_every_fault_at_once() -> None:
    checks = Checks()
    checks.text("a", "x\0", max_chars=10)
    checks.text("b", "  ", max_chars=10)
    checks.batch("c", [], max_items=3)
    checks.number("d", float("nan"), least=0, most=1)
    with pytest.raises(ServiceError) as caught:
        checks.done()
    assert [violation.field for violation in caught.value.violations] == ["a", "b", "c", "d"]
    assert caught.value.reason is Reason.INVALID_FIELD


def test_what_is_too_large_is_refused_at_once() -> None:
    with pytest.raises(ServiceError) as caught:
        Checks().text("a", "xxx", max_chars=2)
    assert caught.value.reason is Reason.INPUT_TOO_LONG
    with pytest.raises(ServiceError) as caught:
        Checks().batch("a", [1, 2, 3], max_items=2)
    assert caught.value.reason is Reason.BATCH_TOO_LARGE


def test_a_status_with_thousands_of_violations_fits_a_header_block() -> None:
    checks = Checks()
    for i in range(20_000):
        checks.refuse(f"documents[63].chunks[{i}].text", "must be the content, verbatim")
    with pytest.raises(ServiceError) as caught:
        checks.done()
    assert to_status(caught.value).ByteSize() < 6 * 1024


def test_the_trace_receiver_is_the_services_own_or_the_one_of_the_standard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://standard:4317")
    assert GatewaySettings().otlp_endpoint == "http://standard:4317"
    monkeypatch.setenv("QUINTET_GATEWAY_OTLP_ENDPOINT", "http://own:4317")
    assert GatewaySettings().otlp_endpoint == "http://own:4317"
    monkeypatch.setenv("QUINTET_GATEWAY_OTLP_ENDPOINT", "")
    assert GatewaySettings().otlp_endpoint == ""
