"""The grid that a command line means: each job as Hydra would compose it, known by what decides its result."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nameplate.section import ConfigError
from trainer.config import run_config
from trainer.sweep.multirun import grid_of, request_of
from trainer.sweep.task import SweepJob


def grid(*overrides: str) -> list[SweepJob]:
    jobs = grid_of(request_of(["-m", *overrides]))
    assert jobs is not None
    return jobs


def test_every_job_is_as_hydra_composes_it_alone() -> None:
    overrides = ["model=mlp,convnet", "fit.epochs=range(1,3)", "optimizer=sgd", "optimizer.momentum=0.5", "seed=7"]
    overrides += ["objective.losses={label: huber}", "data.split_seed=${seed}", "experiment=digits_augmented"]
    jobs = grid(*overrides, "log.every_steps=3", "run=grid")
    assert len(jobs) == 4
    for job in jobs:
        assert job.config == replace(run_config(job.overrides), run="grid")


def test_a_job_is_known_by_what_decides_its_result() -> None:
    names = [job.name for job in grid("seed=1,2", "model=mlp,convnet", "optimizer.learning_rate=1e-2,0.01")]
    assert len(names) == 8
    assert len(set(names)) == 4
    again = grid("seed=1", "model=mlp", "optimizer.learning_rate=0.01", "log.tensorboard=false", "runs=elsewhere")
    assert again[0].name == names[0]


def test_a_setting_that_is_given_as_usual_is_the_same_job() -> None:
    assert grid("fit.global_batch=64")[0].name == grid("seed=0")[0].name


def test_jobs_can_be_told_apart_by_what_decides_nothing() -> None:
    jobs = grid("strategy.replicas=1,2", "sweep.distinct=[strategy.replicas]")
    assert jobs[0].name != jobs[1].name


def test_the_environment_counts_and_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    for secret in ("5", "6"):
        monkeypatch.setenv("SPLIT", secret)
        (job,) = grid("data.split_seed=${oc.decode:${oc.env:SPLIT}}")
        assert job.settings["data.split_seed"] == "${oc.decode:${oc.env:SPLIT}}"
        names.append(job.name)
    assert names[0] != names[1]


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["seed=1,2", "run=a_${seed}"], "run names the sweep"),
        (["run=a,b"], "run names the sweep"),
        (["seed=1,2", "fit.epoch=3"], "fit.epoch: no such key"),
        (["model=mlp,convent"], "Did you mean model=convnet"),
        (["fit.epochs=1,0"], "fit.epochs: 0 is too small"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_runs(overrides: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        grid(*overrides)


def test_a_sweep_without_a_name_has_one() -> None:
    assert grid("seed=1")[0].directory.as_posix() == "runs/sweep"
    assert grid("seed=1", "run=mine", "runs=/tmp/x")[0].directory.as_posix() == "/tmp/x/mine"
