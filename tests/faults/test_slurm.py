"""The batch script with the real trainer: two workers, stopped by the signal before the end, or one of them killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from nameplate import checkpoint as store
from tests.scripts.slurm import asked, submitted
from tests.trainer.running import QUICK, records

STEPS = 1600
RUN = [
    *QUICK,
    "run=mine",
    "model=mlp",
    "model.hidden=[8]",
    "data.limit=64",
    "fit.epochs=200",
    "checkpoint.every_epochs=10",
]


def begun(place: Path) -> subprocess.Popen[str]:
    """Submit the job and return it when its run has a checkpoint."""
    job = submitted(place, *RUN)
    deadline = time.monotonic() + 240
    while not store.checkpoints(place / "runs" / "mine" / "checkpoints"):
        assert job.poll() is None, job.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return job


def workers_of(job: subprocess.Popen[str]) -> list[int]:
    """Return the process numbers of the job's workers."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            given = dict(each.partition(b"=")[::2] for each in path.read_bytes().split(b"\0"))
            line = (path.parent / "cmdline").read_bytes()
        except OSError:  # gone meanwhile, or another's
            continue
        if given.get(b"PLACE") == os.fsencode(Path(f"/proc/{job.pid}/cwd").resolve()) and b"trainer" in line:
            found[given.get(b"SLURM_PROCID", b"")] = int(path.parent.name)
    return [pid for index, pid in sorted(found.items()) if index]


def goes_on(place: Path) -> None:
    """Start the job again, as Slurm does, and see that the run comes to its end as if nothing had been."""
    again = submitted(place, *RUN, SLURM_RESTART_COUNT="1")
    said, _ = again.communicate(timeout=280)
    assert again.returncode == 0, said
    assert "2 replicas on 2 workers" in said
    assert "resuming from" in said
    ends = [each["step"] for each in records(place / "runs" / "mine") if each["kind"] == "epoch"]
    assert ends == list(range(8, STEPS + 1, 8))
    assert not (place / "runs" / "mine" / "requeue.json").exists()
    assert asked(place) == ["requeue 4242"]  # the first time alone


def test_the_signal_before_the_end_saves_and_the_queued_job_goes_on(tmp_path: Path) -> None:
    job = begun(tmp_path)
    job.send_signal(signal.SIGUSR1)
    said, _ = job.communicate(timeout=120)
    assert job.returncode == 143, said
    assert asked(tmp_path) == ["requeue 4242"]
    assert (tmp_path / "runs" / "mine" / "requeue.json").exists()
    goes_on(tmp_path)


@pytest.mark.parametrize("index", [0, 1])
def test_a_worker_that_dies_ends_the_other_and_the_queued_job_goes_on(tmp_path: Path, index: int) -> None:
    job = begun(tmp_path)
    os.kill(workers_of(job)[index], signal.SIGKILL)
    said, _ = job.communicate(timeout=120)
    assert job.returncode == 143, said
    assert asked(tmp_path) == ["requeue 4242"]
    goes_on(tmp_path)
