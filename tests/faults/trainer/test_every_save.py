"""The saves of a real job: an error at the 1st, 2nd, 3rd ... call of its disk until there is none left."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nameplate import checkpoint as store
from tests.trainer.running import QUICK, assert_same, command, content

JOB = [*QUICK, "model=mlp", "data.limit=16", "fit.epochs=2", "checkpoint.keep_last=1", "run=job"]


def faulty(runs: Path, fault: str) -> tuple[int, str, bool]:
    """Run the job with strace's fault; return its exit code, what it said, and whether the fault was hit."""
    log = runs / "strace"
    strace = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", str(log), "-e", f"trace={fault.split(':')[0]}"]
    job = [sys.executable, "-m", "trainer", f"runs={runs}", *JOB]
    done = subprocess.run(
        [*strace, "-e", f"inject={fault}", *job], capture_output=True, text=True, check=False, timeout=240
    )
    return done.returncode, done.stdout + done.stderr, "INJECTED" in log.read_text()


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("fault", "mode"),
    [("fsync:error=EIO", "checkpoint.async_save=true"), ("rename:error=ENOSPC", "checkpoint.async_save=false")],
)
def test_it_never_says_success_and_what_was_good_stays_good(tmp_path: Path, fault: str, mode: str) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (apt-get install strace)")
    assert command(f"runs={tmp_path}", *JOB, "run=whole", mode).returncode == 0
    wanted = content(tmp_path / "whole")
    number = 0
    while True:
        number += 1
        shutil.rmtree(tmp_path / "job", ignore_errors=True)
        code, said, hit = faulty(tmp_path, f"{fault}:when={number}")
        for path in store.checkpoints(tmp_path / "job" / "checkpoints"):
            assert store.verify(path) == [], (number, said)
        if not hit:
            assert code == 0, said
            break
        if code == 0:  # deleting an old checkpoint, or a mark beside it, failed: said, and no reason to stop
            assert_same(content(tmp_path / "job"), wanted)
        else:
            assert "Traceback" not in said
            assert "done:" not in said
        assert command(f"runs={tmp_path}", *JOB, mode).returncode == 0
        assert_same(content(tmp_path / "job"), wanted)
    assert number > 4
