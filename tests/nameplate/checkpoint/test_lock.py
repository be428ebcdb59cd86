from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nameplate import checkpoint as store

HOLD = """
import sys
from nameplate.checkpoint import RunLock
with RunLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of `tmp_path / run`."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_with_the_first_ones_host_and_pid(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    said = f"process {holder.pid} on host '{socket.gethostname()}', since 20"
    with pytest.raises(store.LockedError, match=said), store.RunLock(tmp_path / "run"):
        pytest.fail("two writers")


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with store.RunLock(tmp_path / "run"):
        assert f'"pid": {os.getpid()}' in (tmp_path / "run" / ".lock").read_text()


def test_a_stale_file_with_a_reused_pid_and_a_wrong_clock_is_simply_taken(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text(f'{{"host": "x", "pid": {os.getpid()}, "started": "2999-01-01"}}')
    os.utime(tmp_path / ".lock", (4e9, 4e9))
    with store.RunLock(tmp_path):
        assert "2999" not in (tmp_path / ".lock").read_text()


def test_a_released_lock_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        with store.RunLock(tmp_path):
            assert str(os.getpid()) in (tmp_path / ".lock").read_text()


def test_two_locks_of_one_process_exclude_each_other_too(tmp_path: Path) -> None:
    with store.RunLock(tmp_path), pytest.raises(store.LockedError), store.RunLock(tmp_path):
        pytest.fail("two writers")


def test_a_forked_child_does_not_hold_the_lock_on(tmp_path: Path) -> None:
    script = f"""
import os, sys, time
from nameplate.checkpoint import RunLock
lock = RunLock({str(tmp_path)!r}).__enter__()
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, b"x")
    os.close(write)
    sys.stdin.read()
    os._exit(0)
os.read(read, 1)
os._exit(0)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as process:
        assert process.wait() == 0
        with store.RunLock(tmp_path):  # the child still lives, waiting for its input
            assert str(os.getpid()) in (tmp_path / ".lock").read_text()


def test_garbage_in_the_lock_file_of_a_holder_is_survived(tmp_path: Path) -> None:
    with store.RunLock(tmp_path):
        (tmp_path / ".lock").write_bytes(b"\xff\0[")
        with pytest.raises(store.LockedError, match="another process"), store.RunLock(tmp_path):
            pytest.fail("two writers")
