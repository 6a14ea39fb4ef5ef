"""The images, as containers that the manifests' pods describe: `make images-test`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from pydoc_data.topics import topics

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pytest import CaptureFixture
from support.gateway import gateway_stub, new_collection
from support.pods import IMAGES, REVISION, SERVICES, Pod, Podman, version, what_is_missing
from support.postgres import FAST

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet_local.postgres import running_postgres

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

QUESTION = "What does the assert statement insert into a program?"
WRITE = """
import errno, os, pathlib
for folder in ("/", "/opt/venv", "/opt/quintet", "/etc"):
    try:
        pathlib.Path(folder, "written").write_text("x")
    except OSError as error:
        assert error.errno in (errno.EROFS, errno.EACCES), error
    else:
        raise AssertionError(folder)
(pathlib.Path.home() / "written").write_text("x")
assert os.getuid() == 10001, os.getuid()
status = pathlib.Path("/proc/1/status").read_text()
assert "CapEff:\\t0000000000000000" in status and "NoNewPrivs:\\t1" in status, status
"""


async def until_serving(pod: Pod) -> None:
    """Wait for what the readiness probe asks for."""
    probe = pod.container["readinessProbe"]["grpc"]
    async with grpc.aio.insecure_channel(pod.health_address) as channel:
        watched = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service=probe["service"]), wait_for_ready=True
        )
        async for answer in watched:
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return


def quantity(text: str) -> int:
    return int(text[:-2]) * {"Mi": 2**20, "Gi": 2**30}[text[-2:]]


@pytest.mark.skipif(bool(reason := what_is_missing(*SERVICES)), reason=reason or "all is there")
async def test_five_containers_answer_a_question_as_the_manifests_let_them(
    tmp_path: Path, redis_url: str, capsys: CaptureFixture[str]
) -> None:
    podman = Podman(tmp_path)
    async with running_postgres(tmp_path / "postgres", options=FAST) as database_url:
        with podman.playing(database_url, redis_url) as pods:
            await ask_and_look(podman, pods, capsys)


async def ask_and_look(podman: Podman, pods: dict[str, Pod], capsys: CaptureFixture[str]) -> None:
    """Ask a question of the pods, and look at what they may do."""
    try:
        async with asyncio.timeout(180):
            await asyncio.gather(*map(until_serving, pods.values()))
    except TimeoutError:
        for pod in pods.values():
            print(podman.logs(pod))
        raise
    async with gateway_stub(pods["gateway"].address) as stub:
        documents = [
            pb.Document(id=name, title=name, content=topics[name])
            for name in ("with", "try", "assert")
        ]
        async with new_collection(stub, documents) as collection:
            request = pb.AskRequest(collection=collection, question=QUESTION)
            answer = await stub.Ask(request, timeout=60)
            # The language model, in a process of its own.
            request.model = "smollm2-135m-instruct"
            request.max_tokens = 8
            spoken = await stub.Ask(request, timeout=120)
    assert "assert" in {citation.document_id for citation in answer.citations}
    assert not answer.degradations
    assert 0 < spoken.usage.completion_tokens <= 8
    assert spoken.model == "smollm2-135m-instruct"

    for pod in pods.values():
        found = podman.inspect(pod.container_name)
        limit = quantity(pod.container["resources"]["limits"]["memory"])
        assert found["HostConfig"]["ReadonlyRootfs"] is True
        assert found["HostConfig"]["Memory"] == limit
        podman("exec", pod.container_name, "/opt/venv/bin/python", "-c", WRITE)
    used = {
        it["name"]: it["mem_usage"]
        for it in json.loads(podman("stats", "--no-stream", "--format", "json"))
    }
    with capsys.disabled():
        print(f"\n{QUESTION}\n{answer.answer}\n")
        for pod in pods.values():
            print(f"{pod.name}: memory {used[pod.container_name]}")


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_holds_what_its_lock_names_and_says_so(
    name: str, tmp_path: Path, capsys: CaptureFixture[str]
) -> None:
    if reason := what_is_missing(name):
        pytest.skip(reason)
    podman = Podman(tmp_path)
    image = f"quintet/{name}:{version()}"
    found = podman.inspect("--type", "image", image)
    labels = found["Labels"]
    assert labels["org.opencontainers.image.title"] == f"quintet-{name}"
    assert labels["org.opencontainers.image.version"] == version()
    assert len(labels[REVISION]) == 40
    assert found["Config"]["User"] == "10001:10001"
    assert found["Config"]["Entrypoint"][0] == "/opt/venv/bin/python"
    program = (
        "import json, pathlib, importlib.metadata as m;"
        "print(json.dumps([sorted({d.name.lower().replace('_', '-') for d in m.distributions()}),"
        " json.loads(pathlib.Path('/opt/quintet/sbom.cdx.json').read_text())]))"
    )
    entrypoint = ["--entrypoint", "/opt/venv/bin/python"]
    told = podman("run", "--rm", "--network=none", "--read-only", *entrypoint, image, "-c", program)
    installed, bill = json.loads(told)
    assert bill["bomFormat"] == "CycloneDX"
    listed = {it["name"].lower().replace("_", "-") for it in bill["components"]}
    assert set(installed) <= listed
    assert not {"torch", "transformers", "pip", "setuptools"} & set(installed)
    program = f"import quintet_{name}.app"  # which fails without a file that it needs
    podman("run", "--rm", "--network=none", "--read-only", *entrypoint, image, "-c", program)
    with capsys.disabled():
        print(f"{image}: {found['Size'] / 1e6:.0f} MB, {len(installed)} distributions")
