"""A stack's folder: one stack at a time, and what others learn of it."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from quintet_local.process import StartError
from quintet_local.state import AlreadyRunningError, StackInfo, find_stack, locked

INFO = StackInfo(pid=7, endpoints={"gateway": {"grpc": "127.0.0.1:1"}}, pids={"gateway": 8})

HOLDER = """
import sys, time
from pathlib import Path
from quintet_local.state import StackInfo, locked
with locked(Path(sys.argv[1])) as folder:
    folder.write(StackInfo(1, {}, {}))
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_second_stack_in_the_folder_is_refused_by_name(tmp_path: Path) -> None:
    with locked(tmp_path / "state"):
        message = f"already running in {tmp_path / 'state'}"
        with pytest.raises(AlreadyRunningError, match=message), locked(tmp_path / "state"):
            pass
    with locked(tmp_path / "state"):
        pass


def test_a_running_stack_is_found_and_one_that_ended_is_not(tmp_path: Path) -> None:
    assert find_stack(tmp_path / "state") is None
    with locked(tmp_path / "state") as folder:
        assert find_stack(tmp_path / "state") is None
        folder.write(INFO)
        assert find_stack(tmp_path / "state") == INFO
    assert find_stack(tmp_path / "state") is None


def test_a_stack_that_was_killed_is_not_found_and_leaves_the_folder_free(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout and holder.stdout.readline() == "locked\n"
        assert find_stack(tmp_path) == StackInfo(1, {}, {})
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert (tmp_path / "stack.json").exists()
    assert find_stack(tmp_path) is None
    with locked(tmp_path):
        pass


def test_the_folder_is_for_its_user_alone_and_hidden_from_version_control(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "state") as folder:
        assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
        assert (folder.path / ".gitignore").read_text() == "*\n"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(StartError, match=r"file/state: Not a directory"),
        locked(tmp_path / "file" / "state"),
    ):
        pass


def test_a_log_that_is_too_long_starts_anew_under_its_writer(tmp_path: Path) -> None:
    with locked(tmp_path) as folder, folder.log_file("gateway").open("ab", buffering=0) as log:
        log.write(b"a" * 100)
        folder.cap_logs(100)
        assert folder.log_file("gateway").stat().st_size == 100
        log.write(b"b")
        folder.cap_logs(100)
        log.write(b"c")
        assert folder.log_file("gateway").read_bytes() == b"c"
        assert (folder.logs / "gateway.log.1").read_bytes() == b"a" * 100 + b"b"
        assert {file.name for file in folder.logs.iterdir()} == {"gateway.log", "gateway.log.1"}
