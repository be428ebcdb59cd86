"""A sweep killed again and again, its jobs, its parent or both: what is done stays, nothing runs twice at once.

Each job writes when it begins and when it ends into one file, appended whole; two that overlap would show.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.trainer.running import assert_same, content
from tests.trainer.sweep.sweeping import SMALL, records
from trainer.ledger.ledger import Ledger
from trainer.ledger.record import State

TELLS = """
import os
import time

import keras


def build(input_shape, classes, where=""):
    x = keras.Input(input_shape, name="x")
    flat = keras.layers.Flatten(name="flat")(x)
    drop = keras.layers.Dropout(0.3, name="drop")(flat)
    with open(os.path.join(where, "told"), "a") as file:
        file.write(f"{os.getpid()} {time.monotonic()}\\n")
    return keras.Model(x, keras.layers.Dense(classes, name="y")(drop), name="mine")
"""
GRID = ["model=custom", "model._target_=tells.build", "trust=[tells]", "seed=1,2,3", "fit.steps=40"]
GRID += ["checkpoint.every_steps=5", "log.every_steps=5", "fit.steps_per_loop=1"]
KILLS = 6


@pytest.mark.timeout(900)
@pytest.mark.parametrize("victims", [("job",), ("parent",), ("parent", "job"), ("job", "parent")], ids="-".join)
def test_a_sweep_that_is_killed_again_and_again_ends_as_one_that_was_not(
    victims: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "tells.py").write_text(TELLS)
    draw = random.Random("-".join(victims))
    done: dict[str, object] = {}
    for _ in range(KILLS):
        parent = _start(tmp_path, "killed")
        _wait_for_a_job(tmp_path, parent)
        time.sleep(draw.uniform(0.0, 1.5))
        for victim in victims:
            _kill(victim, parent, tmp_path)
        if "parent" not in victims:
            parent.wait()
        _assert_nothing_lost(tmp_path, done)
    last = _start(tmp_path, "killed")
    assert last.wait() == 0
    assert [each.state for each in records(tmp_path, "killed")] == [State.done] * 3
    assert _start(tmp_path, "whole").wait() == 0
    for each in records(tmp_path, "whole"):
        assert_same(content(tmp_path / "killed" / each.job), content(tmp_path / "whole" / each.job))
        again = Ledger(tmp_path / "killed").record(each.job)
        assert again is not None
        assert (again.best, again.values["loss"]) == (each.best, each.values["loss"])


@pytest.mark.timeout(900)
def test_two_calls_of_one_sweep_share_its_jobs(tmp_path: Path) -> None:
    (tmp_path / "tells.py").write_text(TELLS)
    both = [_start(tmp_path, "shared") for _ in range(2)]
    assert [each.wait() for each in both] == [0, 0]
    assert [(each.state, each.attempts) for each in records(tmp_path, "shared")] == [(State.done, 1)] * 3
    assert len((tmp_path / "told").read_text().splitlines()) == 3


def _start(runs: Path, name: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(runs), *sys.path])}
    grid = [*GRID, f"model.arguments.where={runs}"]
    command = [sys.executable, "-m", "trainer", "-m", f"runs={runs}", f"run={name}", *SMALL, *grid]
    with (runs / "said").open("a") as said:
        return subprocess.Popen(command, env=environment, stdout=said, stderr=said)


def _wait_for_a_job(runs: Path, parent: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while parent.poll() is None and not _running(runs):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _running(runs: Path) -> list[str]:
    return [each.job for each in records(runs, "killed") if each.state is State.running]


def _kill(victim: str, parent: subprocess.Popen, runs: Path) -> None:
    if victim == "parent":
        parent.kill()
        parent.wait()
        return
    for job in _running(runs):
        for pid in _holders(runs / "killed" / "ledger" / f"{job}.lock") - {parent.pid}:
            os.kill(pid, signal.SIGKILL)


def _holders(path: Path) -> set[int]:
    """Return the processes that have a file open."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = [os.readlink(each) for each in (process / "fd").iterdir()]
        except OSError:
            continue
        if str(path) in links:
            found.add(int(process.name))
    return found


def _assert_nothing_lost(runs: Path, done: dict[str, object]) -> None:
    """Every job that was done is, with the same record; at most one process holds a job."""
    for each in records(runs, "killed"):
        if each.job in done:
            assert done[each.job] == each
        if each.state is State.done:
            done[each.job] = each
