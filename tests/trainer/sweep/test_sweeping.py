"""Whole sweeps with real jobs: what is done stays done, what fails is told, what is new is added."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nameplate import checkpoint as store
from nameplate.section import ConfigError
from tests.trainer.running import about, assert_same, content
from tests.trainer.sweep.sweeping import OWN, SMALL, records, states, sweep, write_wrong
from trainer.ledger.ledger import Ledger
from trainer.ledger.record import State
from trainer.sweep.__main__ import main

DONE, FAILED, PLANNED = State.done, State.failed, State.planned


def test_the_same_command_runs_only_what_is_not_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """hydra#3328: a multirun cannot be resumed."""
    assert sweep(tmp_path, "seed=1,2", monkeypatch=monkeypatch) == 0
    first = {each.job: content(tmp_path / "sweep" / each.job) for each in records(tmp_path)}
    assert "leaderboard" in capsys.readouterr().out

    assert sweep(tmp_path, "seed=1,2", monkeypatch=monkeypatch) == 0
    assert states(tmp_path) == [(DONE, 1), (DONE, 1)]
    assert "2 jobs, 2 of them already done" in capsys.readouterr().out

    assert sweep(tmp_path, "seed=1,2", "optimizer.learning_rate=0.001,0.01", monkeypatch=monkeypatch) == 0
    assert states(tmp_path) == [(DONE, 1)] * 4
    for name, tensors in first.items():
        assert_same(content(tmp_path / "sweep" / name), tensors)
    board = json.loads((tmp_path / "sweep" / "leaderboard.json").read_text())
    assert [len(group["jobs"]) for group in board["groups"]] == [2, 2]

    with pytest.raises(ConfigError, match=r"fit\.steps: 2 -> 3[\s\S]*sweep over both: fit\.steps=2,3"):
        sweep(tmp_path, "seed=1,2", "fit.steps=3", monkeypatch=monkeypatch)
    assert len(records(tmp_path)) == 4


def test_jobs_that_die_are_told_and_stop_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """hydra#2551, hydra#2824: a failed job of a sweep tells nothing."""
    write_wrong(tmp_path, monkeypatch)
    hows = "model.arguments.how=error,segfault,kill,exit,memory,well"
    assert sweep(tmp_path, *OWN, hows, monkeypatch=monkeypatch) == 1
    found = {each.setting("model.arguments.how"): each for each in records(tmp_path)}
    assert {how: (each.state, each.exit_code) for how, each in found.items()} == {
        "error": (FAILED, 2),
        "segfault": (FAILED, -11),
        "kill": (FAILED, -9),
        "exit": (FAILED, 7),
        "memory": (FAILED, 2),
        "well": (DONE, 0),
    }
    homes = {how: tmp_path / "sweep" / each.job for how, each in found.items()}
    says = {how: (home / "failure.txt").read_text() for how, home in homes.items() if how != "well"}
    assert "ArithmeticError: it cannot be built" in says["error"]
    assert "wrong.py" in says["segfault"]
    assert "SIGKILL" in says["kill"]
    assert "Traceback" in says["memory"]
    assert not (homes["well"] / "failure.txt").exists()
    assert "killed by SIGKILL" in capsys.readouterr().err

    asked = ["rerun", str(tmp_path / "sweep"), found["exit"].job[:8], found["well"].job]
    assert main(asked) == 2
    assert "trust it again: --trust wrong" in capsys.readouterr().err
    assert main([*asked, "--trust", "wrong"]) == 1
    assert [each.attempts for each in records(tmp_path)] == [1, 1, 1, 2, 1, 1]
    assert main(["rerun", str(tmp_path / "sweep"), found["well"].job, "--again", "--trust", "wrong"]) == 0
    again = Ledger(tmp_path / "sweep").record(found["well"].job)
    assert again is not None
    assert (again.state, again.attempts) == (DONE, 1)
    assert store.checkpoints(homes["well"].with_name(f"{found['well'].job}.before-1") / "checkpoints")


def test_after_a_failure_no_other_job_begins_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = ["optimizer=sgd", "optimizer.learning_rate=1e30,0.1", "sweep.fail_fast=true", "fit.steps=4"]
    assert sweep(tmp_path, *jobs, monkeypatch=monkeypatch) == 1
    assert states(tmp_path) == [(FAILED, 1), (PLANNED, 0)]
    (failed, _) = records(tmp_path)
    assert failed.exit_code == 3
    assert "the loss" in (failed.error or "")


def test_a_warm_job_is_a_fresh_one_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sweep(tmp_path, "seed=3", monkeypatch=monkeypatch) == 0
    assert sweep(tmp_path, "seed=3", "sweep=default", "run=fresh", monkeypatch=monkeypatch) == 0
    (warm,), (fresh,) = records(tmp_path), records(tmp_path, "fresh")
    assert_same(content(tmp_path / "sweep" / warm.job), content(tmp_path / "fresh" / fresh.job))
    assert (warm.job, warm.best, warm.values["loss"]) == (fresh.job, fresh.best, fresh.values["loss"])


def test_a_run_begins_with_the_best_weights_of_a_sweep_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sweep(tmp_path, "seed=1,2", "run=tried", monkeypatch=monkeypatch) == 0
    assert sweep(tmp_path, "init=checkpoint", "init.path=tried", "init.from=best", monkeypatch=monkeypatch) == 0
    (begun,) = records(tmp_path)
    best = max(records(tmp_path, "tried"), key=lambda each: each.best or 0.0)
    origins = about(tmp_path / "sweep" / begun.job)["origins"].values()
    assert {each["file"] for each in origins} == {
        str(store.resolve(tmp_path / "tried" / best.job / "checkpoints", "best"))
    }


def test_a_job_that_does_worse_than_the_others_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = "optimizer.learning_rate=0.01,0.02,0.00000001"
    prune = ["sweep.prune.rule=median", "sweep.prune.after_jobs=2", "sweep.prune.after_epochs=2"]
    length = ["fit.steps=null", "fit.epochs=4", "checkpoint.monitor=loss", "optimizer=sgd"]
    assert sweep(tmp_path, rates, *prune, *length, monkeypatch=monkeypatch) == 0
    *others, last = records(tmp_path)
    assert [each.pruned for each in others] == [None, None]
    assert "stopped early after epoch 2" in (last.pruned or "")
    assert (last.state, last.steps) == (DONE, 10)
    assert sweep(tmp_path, rates, *prune[1:], *length, monkeypatch=monkeypatch) == 0
    *_, last = records(tmp_path)
    assert (last.pruned, last.attempts, last.steps) == (None, 2, 20)


def test_a_job_outlives_the_kill_of_its_sweep_until_it_is_saved_and_goes_on_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wrong(tmp_path, monkeypatch)
    jobs = [*OWN, "seed=1,2", "model.arguments.how=waits", f"model.arguments.where={tmp_path}", "log.every_steps=1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "trainer", "-m", f"runs={tmp_path}", *SMALL, *jobs]
    with (tmp_path / "said").open("w") as said:  # no pipe: the job's process holds on to it
        parent = subprocess.Popen(command, env=environment, stdout=said)
    deadline = time.monotonic() + 120
    while not (tmp_path / "waits").exists():
        assert parent.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert "tensorflow" not in Path(f"/proc/{parent.pid}/maps").read_text()
    parent.kill()
    parent.wait()
    assert "2 jobs, 0 of them already done" in (tmp_path / "said").read_text()
    assert [each.state for each in records(tmp_path)] == [State.running, PLANNED]  # it has half a second to hear of it

    assert sweep(tmp_path, *jobs, monkeypatch=monkeypatch) == 0
    assert states(tmp_path) == [(DONE, 2), (DONE, 1)]
    first = records(tmp_path)[0]
    assert "stopped by SIGTERM after step 1" in (tmp_path / "sweep" / first.job / "output.log").read_text()
