"""Hydra's launchers and its Optuna sampler, each installed and run: the ledger, locks and leases work under all.

One that shall not be tried is named in NAMEPLATE_WITHOUT, e.g. `NAMEPLATE_WITHOUT=ray make faults`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.sweep.extras import python_with, sweep_with
from tests.trainer.sweep.sweeping import SMALL, records, states
from trainer.ledger.record import State

WITHOUT = os.environ.get("NAMEPLATE_WITHOUT", "").split(",")
OPTUNA = ["hydra/sweeper=optuna", "hydra.sweeper.sampler.seed=1", "checkpoint.monitor=val_loss"]
FAILS = ["optimizer=sgd", "optimizer.learning_rate=0.01,1e30", "seed=1,2", "fit.steps=4"]


def python(extra: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    if extra in WITHOUT:
        pytest.skip(f"NAMEPLATE_WITHOUT names {extra}")
    return python_with(extra, tmp_path_factory.getbasetemp() / "extras")


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("extra", "launcher"),
    [
        ("sweep", ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]),
        ("slurm", ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10"]),
        ("ray", ["hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2", "+hydra.launcher.ray.remote.num_cpus=1"]),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_jobs_run_under_a_launcher_once_each_and_a_failure_stops_nobody(
    extra: str, launcher: list[str], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    own = python(extra, tmp_path_factory)
    done = sweep_with(own, tmp_path, *SMALL, *FAILS, *launcher)
    assert done.returncode == 1, done.stdout + done.stderr
    found = {(each.setting("optimizer.learning_rate"), each.state) for each in records(tmp_path)}
    assert found == {(0.01, State.done), (1e30, State.failed)}
    assert [each.attempts for each in records(tmp_path)] == [1] * 4
    assert "leaderboard" in done.stdout

    again = sweep_with(own, tmp_path, *SMALL, *FAILS, *launcher)
    assert again.returncode == 1
    assert sorted(each.attempts for each in records(tmp_path)) == [1, 1, 2, 2]


@pytest.mark.timeout(900)
def test_jobs_side_by_side_have_cores_of_their_own(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    own = python("sweep", tmp_path_factory)
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=4", "sweep.cpus_per_job=1", "seed=1,2,3,4"]
    leases = {"NAMEPLATE_LEASES": str(tmp_path / "leases")}
    done = sweep_with(own, tmp_path, *SMALL, *launcher, env=leases)
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(tmp_path) == [(State.done, 1)] * 4


@pytest.mark.timeout(900)
def test_optuna_improves_the_monitored_value_and_is_told_the_same_again(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    own = python("optuna", tmp_path_factory)
    search = [
        "hydra/sweeper=optuna",
        "hydra.sweeper.n_trials=6",
        "hydra.sweeper.n_jobs=1",
        "checkpoint.monitor=val_loss",
    ]
    search += ["hydra.sweeper.sampler.seed=1", "optimizer.learning_rate=tag(log,interval(1e-6,1e-1))"]
    length = ["fit.steps=null", "fit.epochs=3", "sweep.prune.rule=median", "sweep.prune.after_jobs=3"]
    done = sweep_with(own, tmp_path, *SMALL, *search, *length)
    assert done.returncode == 0, done.stdout + done.stderr
    first = records(tmp_path)
    assert [each.state for each in first] == [State.done] * 6
    assert any(each.pruned for each in first)
    best = min(first, key=lambda each: each.best or 0.0)
    results = (tmp_path / "sweep" / "hydra" / "optimization_results.yaml").read_text()
    assert repr(best.best) in results

    again = sweep_with(own, tmp_path, *SMALL, *search, *length)
    assert again.returncode == 0, again.stderr
    assert (
        records(tmp_path) == first
    )  # a sampler with a seed asks for the same jobs, and each is answered by the ledger


@pytest.mark.timeout(900)
def test_a_sampler_goes_on_after_jobs_that_fail(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    own = python("optuna", tmp_path_factory)
    search = [
        "hydra/sweeper=optuna",
        "hydra.sweeper.n_trials=4",
        "hydra.sweeper.n_jobs=2",
        "checkpoint.monitor=val_loss",
    ]
    search += [
        "hydra.sweeper.sampler.seed=1",
        "optimizer=sgd",
        "optimizer.learning_rate=choice(0.01,1e30)",
        "seed=range(9)",
    ]
    done = sweep_with(own, tmp_path, *SMALL, *search, "fit.steps=4")
    assert done.returncode == 1, done.stdout + done.stderr
    assert {each.state for each in records(tmp_path)} == {State.done, State.failed}


def test_a_sampler_that_would_look_for_the_worst_is_refused(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    own = python("optuna", tmp_path_factory)
    search = ["hydra/sweeper=optuna", "checkpoint.monitor=val_accuracy", "seed=range(9)"]
    done = sweep_with(own, tmp_path, *SMALL, *search, "hydra.sweeper.direction=minimize")
    assert done.returncode == 2
    assert "val_accuracy is maximized" in done.stderr
    none = sweep_with(own, tmp_path, *SMALL, "hydra/sweeper=optuna", "seed=range(9)")
    assert "checkpoint.monitor: required" in none.stderr
