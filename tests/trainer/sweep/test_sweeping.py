"""Whole sweeps with real jobs: what is done stays done, what fails is told, what is new is added."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from models import store
from tests.trainer.running import assert_same, content
from tests.trainer.sweep.sweeping import WRONG, records, states, sweep
from trainer.config.base import ConfigError
from trainer.ledger.ledger import Ledger
from trainer.ledger.record import State
from trainer.sweep.commands import main

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
    assert "2 jobs, 2 of them done before" in capsys.readouterr().out

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
    (tmp_path / "wrong.py").write_text(WRONG)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = ["model=custom", "model._target_=wrong.build", "trust=[wrong]"]
    hows = "model.arguments.how=error,segfault,kill,exit,memory,well"
    assert sweep(tmp_path, *own, hows, monkeypatch=monkeypatch) == 1
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
    assert "ended by SIGKILL" in capsys.readouterr().err

    assert main(["rerun", str(tmp_path / "sweep"), found["exit"].job[:8], found["well"].job]) == 1
    assert [each.attempts for each in records(tmp_path)] == [1, 1, 1, 2, 1, 1]
    assert main(["rerun", str(tmp_path / "sweep"), found["well"].job, "--again"]) == 0
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
    first = ["init=checkpoint", "init.path=tried", "init.from=best", "optimizer.learning_rate=0"]
    assert sweep(tmp_path, *first, monkeypatch=monkeypatch) == 0
    (begun,) = records(tmp_path)
    ledger = Ledger(tmp_path / "tried")
    best = max(ledger.records(), key=lambda each: each.best or 0.0)
    source, taken = content(tmp_path / "tried" / best.job), content(tmp_path / "sweep" / begun.job)
    weights = [name for name in source if name.startswith("weights:")]
    assert weights
    assert_same({name: taken[name] for name in weights}, {name: source[name] for name in weights})


def test_a_job_that_does_worse_than_the_others_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = "optimizer.learning_rate=0.01,0.02,0.00000001"
    prune = ["sweep.prune.rule=median", "sweep.prune.after_jobs=2", "sweep.prune.after_epochs=2"]
    length = ["fit.steps=null", "fit.epochs=4", "checkpoint.monitor=loss", "optimizer=sgd"]
    assert sweep(tmp_path, rates, *prune, *length, monkeypatch=monkeypatch) == 0
    *others, last = records(tmp_path)
    assert [each.pruned for each in others] == [None, None]
    assert "given up after epoch 2" in (last.pruned or "")
    assert (last.state, last.steps) == (DONE, 10)
    assert sweep(tmp_path, rates, *prune[1:], *length, monkeypatch=monkeypatch) == 0
    *_, last = records(tmp_path)
    assert (last.pruned, last.attempts, last.steps) == (None, 2, 20)


def test_the_parent_of_a_sweep_never_imports_tensorflow_and_says_what_happens(tmp_path: Path) -> None:
    job = ["model=mlp", "data.limit=40", "fit.steps=1", "fit.global_batch=8", "log.tensorboard=false", "seed=1,2"]
    code = "import sys; from trainer.__main__ import main; code = main(); sys.exit(code or 'keras' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "-m", *job, f"runs={tmp_path}", "sweep=warm"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[1] for line in lines if "seed=" in line] == ["running", "done"] * 2
    assert done.stderr == ""
