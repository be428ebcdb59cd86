"""The batch script decides as it should what to do with each end of a run; the workers here only play theirs."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.scripts.slurm import asked, submitted

WORKER = """#!/bin/bash
told() { echo told >> "told.$SLURM_PROCID"; echo '{}' > runs/mine/requeue.json; exit 143; }
trap told USR1
echo "$@" > "started.$SLURM_PROCID"
[[ -z ${SAVES:-} ]] || echo step_2 > runs/mine/checkpoints/latest
if [[ -n ${STAYS:-} ]]; then touch "ready.$SLURM_PROCID"; while :; do sleep 0.05; done; fi
exit "$CODE"
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a directory with a run that has a checkpoint, and a worker that does as its environment says."""
    (tmp_path / "runs" / "mine" / "checkpoints").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "checkpoints" / "latest").write_text("step_1\n")
    (tmp_path / "worker").write_text(WORKER)
    (tmp_path / "worker").chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(
    ("code", "saves", "queued"),
    [(0, "yes", False), (143, "yes", True), (143, "", False), (1, "yes", False), (2, "", False), (3, "yes", False)],
)
def test_only_a_run_that_can_go_on_and_came_further_is_queued_again(
    place: Path, code: int, saves: str, queued: bool
) -> None:
    job = submitted(place, "run=mine", python=str(place / "worker"), CODE=str(code), SAVES=saves)
    said, _ = job.communicate()
    assert job.returncode == code, said
    assert asked(place) == (["requeue 4242"] if queued else [])
    assert ("has made no progress" in said) == (code == 143 and not queued)


def test_the_signal_before_the_end_reaches_every_worker_once_and_the_job_is_queued_again(place: Path) -> None:
    job = submitted(place, "run=mine", python=str(place / "worker"), CODE="0", STAYS="yes")
    deadline = time.monotonic() + 60
    while len(list(place.glob("ready.*"))) < 2:
        assert job.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    job.send_signal(signal.SIGTERM)  # from Slurm, which tells the workers itself
    job.send_signal(signal.SIGUSR1)
    job.send_signal(signal.SIGUSR1)
    said, _ = job.communicate(timeout=60)
    assert job.returncode == 143, said
    assert asked(place) == ["requeue 4242"]
    assert [(place / f"told.{index}").read_text() for index in range(2)] == ["told\n", "told\n"]


@pytest.mark.parametrize(("tasks", "begins"), [(1, "-m trainer run="), (2, "-m trainer strategy=multi_worker run=")])
def test_one_task_is_a_run_of_one_process(place: Path, tasks: int, begins: str) -> None:
    job = submitted(place, "run=mine", "seed=3", tasks=tasks, python=str(place / "worker"), CODE="0")
    assert job.communicate()[0] == ""
    assert (place / "started.0").read_text() == f"{begins}mine seed=3\n"
    assert (place / "started.1").exists() == (tasks == 2)


def test_a_run_without_a_name_is_refused(place: Path) -> None:
    job = submitted(place, "model=mlp", python=str(place / "worker"), CODE="0")
    assert "run=NAME" in job.communicate()[0]
    assert job.returncode == 2
    assert not (place / "started.0").exists()
