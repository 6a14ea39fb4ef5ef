"""What the README tells a newcomer to type works as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from support.gateway import gateway_stub
from support.stack import TestStack

from quintet.gateway.v1 import gateway_service_pb2 as pb

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^\$ (.+)$", README, re.MULTILINE)


def test_its_make_targets_exist() -> None:
    targets = [command.split()[1] for command in COMMANDS if command.startswith("make ")]
    assert targets[:2] == ["demo", "test"]
    for target in targets:
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


async def test_its_commands_and_its_python_run_against_a_stack(stack: TestStack) -> None:
    commands = [
        shlex.split(it)
        for it in COMMANDS
        # Keys have a test of their own: a stack that is open takes those of others too.
        if it.startswith(".venv/bin/quintet ") and ".key" not in it and " keys " not in it
    ]
    assert [command[1] for command in commands] == [
        "ingest",
        "ask",
        "search",
        "documents",
        "status",
        "ask",
        "cache",
        "cache",
    ]
    environment = {**os.environ, "QUINTET_STATE_DIR": str(stack.state_dir)}
    quintet = Path(sys.executable).with_name("quintet")
    for _, *arguments in commands:
        ran = subprocess.run(
            [quintet, *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert ran.stdout.strip()

    key = (stack.state_dir / "api-key").read_text().strip()
    (program,) = re.findall(r"^```python\n(.+?)^```", README, re.MULTILINE | re.DOTALL)
    ran = subprocess.run(
        [sys.executable, "-c", f"address, key = {stack.gateway!r}, {key!r}\n{program}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()
    async with gateway_stub(stack.gateway) as stub:
        await stub.DeleteCollection(pb.DeleteCollectionRequest(name="handbook"))


def test_every_place_that_it_links_to_is_there() -> None:
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("services/*/README.md")]
    for page in pages:
        text = re.sub(r"`[^`\n]*`", "", page.read_text())  # examples of links
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page}: {link}"
