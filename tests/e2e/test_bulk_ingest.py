"""Runs of `quintet ingest` that share the files of a folder."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

from support.gateway import gateway_stub
from support.stack import TestStack

from quintet.gateway.v1 import gateway_service_pb2 as pb

SHARES = 3
FILES = 24


async def test_all_shares_at_once_bring_in_every_file_exactly_once(
    stack: TestStack, tmp_path: Path
) -> None:
    """As the Pods of an Indexed Job do: none makes the collection before the others."""
    names = {f"part{n % 4}/page{n}.md" for n in range(FILES)}
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"# {name}\n\nThis is what {name} is about.\n")
    collection = f"test-{secrets.token_hex(6)}"
    command = [sys.executable, "-m", "quintet_cli", "ingest", str(tmp_path), "--json"]
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    runs = [
        subprocess.Popen(  # noqa: ASYNC220
            [*command, "--address", stack.gateway, "-c", collection, "--shard", f"{i}/{SHARES}"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(SHARES)
    ]
    ingested: list[str] = []
    for run in runs:
        out, error = run.communicate(timeout=120)
        assert run.returncode == 0, error
        *documents, summary = map(json.loads, out.splitlines())
        assert all(it["outcome"] == "created" for it in documents)
        assert summary["documents"] == len(documents)
        ingested += [it["id"] for it in documents]
    assert len(ingested) == FILES
    assert set(ingested) == names
    async with gateway_stub(stack.gateway) as stub:
        listed = await stub.ListDocuments(
            pb.ListDocumentsRequest(collection=collection, page_size=100)
        )
        assert {it.id for it in listed.documents} == names
        await stub.DeleteCollection(pb.DeleteCollectionRequest(name=collection))
