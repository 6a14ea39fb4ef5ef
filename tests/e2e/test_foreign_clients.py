"""Callers without our stubs: reflection is all they need."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2
from support.gateway import gateway_stub, new_collection
from support.stack import TestStack

from quintet.gateway.v1 import gateway_service_pb2 as pb

DOCUMENT = pb.Document(id="bees", content="Bees make honey. Ants make hills.")
QUESTION = "What do bees make?"
NODE_FOLDER = Path(__file__).parent / "node"


async def test_buf_curl_asks_through_reflection(stack: TestStack) -> None:
    buf = Path(sys.executable).with_name("buf")
    async with gateway_stub(stack.gateway) as stub, new_collection(stub, [DOCUMENT]) as name:
        url = f"http://{stack.gateway}/quintet.gateway.v1.GatewayService/Ask"
        data = json.dumps({"collection": name, "question": QUESTION})
        asked = subprocess.run(
            [buf, "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--data", data, url],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert asked.returncode == 0, asked.stderr
    answer = json.loads(asked.stdout)
    assert "honey" in answer["answer"]
    assert answer["citations"][0]["documentId"] == "bees"


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
async def test_a_node_client_asks_through_reflection(stack: TestStack, tmp_path: Path) -> None:
    shutil.copytree(NODE_FOLDER, tmp_path, dirs_exist_ok=True)
    install = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--prefer-offline"]
    subprocess.run(install, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    descriptors = descriptor_pb2.FileDescriptorSet()
    reflection_pb2.DESCRIPTOR.CopyToProto(descriptors.file.add())
    (tmp_path / "reflection.binpb").write_bytes(descriptors.SerializeToString())

    async with gateway_stub(stack.gateway) as stub, new_collection(stub, [DOCUMENT]) as name:
        asked = subprocess.run(
            ["node", "ask.js", stack.gateway, "reflection.binpb", name, QUESTION],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            # The address is this machine's own, whatever proxy leads out of it.
            env={**os.environ, "no_proxy": "*"},
        )
    assert asked.returncode == 0, asked.stderr
    whole, *events = map(json.loads, asked.stdout.splitlines())
    assert "honey" in whole["answer"]
    assert events[0]["event"] == "passages_found"
    assert events[-1]["event"] == "completed"
    text = "".join(
        event["text_delta"]["text"] for event in events if event["event"] == "text_delta"
    )
    assert text == whole["answer"]


def test_the_client_wheel_works_alone(tmp_path: Path) -> None:
    protos = Path(__file__).parents[2] / "protos"
    source = tmp_path / "source"
    shutil.copytree(protos, source, ignore=shutil.ignore_patterns("*.egg-info", "build"))
    pip: list[Any] = [sys.executable, "-m", "pip", "--quiet"]
    build: list[Any] = [
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        tmp_path,
        source,
    ]
    subprocess.run([*pip, *build], check=True, timeout=120)
    (wheel,) = tmp_path.glob("quintet_protos-*.whl")

    # An environment that holds grpcio and protobuf, linked from ours, and no more.
    alone = tmp_path / "alone"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", alone], check=True)
    (packages,) = alone.glob("lib/python*/site-packages")
    (ours,) = {Path(entry) for entry in sys.path if entry.endswith("site-packages")}
    (packages / "google").mkdir()
    for package in ("grpc", "google/protobuf", "google/_upb", "typing_extensions.py"):
        (packages / package).symlink_to(ours / package)
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", "--target", packages, wheel], check=True
    )
    program = """
import importlib.metadata, pathlib, quintet
(root,) = map(pathlib.Path, quintet.__path__)
files = [file.relative_to(root.parent).with_suffix("") for file in root.rglob("*.py")]
for file in files:
    importlib.import_module(".".join(file.parts))
print(len(files), sorted(importlib.metadata.requires("quintet-protos")))
"""
    ran = subprocess.run(
        [alone / "bin" / "python", "-c", program], capture_output=True, text=True, cwd=tmp_path
    )
    assert ran.returncode == 0, ran.stderr
    modules = len(list((protos / "gen").rglob("*.py")))
    assert ran.stdout == f"{modules} ['grpcio<2,>=1.76', 'protobuf<8,>=6.31.1']\n"
