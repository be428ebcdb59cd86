"""`nameplate.sweep`: jobs from Python, each done once, whatever happens to the script."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import nameplate
from nameplate import checkpoint as store
from nameplate.errors import NameplateError, StoppedError
from tests.trainer.running import assert_same, content
from tests.trainer.sweep.sweeping import SMALL
from trainer.ledger.ledger import Ledger
from trainer.ledger.record import State
from trainer.sweep.__main__ import main

X = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
Y = X @ np.array([[1.0], [-2.0], [0.5]], "float32")


def net() -> keras.Model:
    inputs = keras.Input((3,), name="x")
    return keras.Model(inputs, keras.layers.Dense(1, name="y")(inputs), name="net")


def trained(rate: float, run: Path, seed: int = 0) -> keras.callbacks.History:
    model = net()
    model.compile(keras.optimizers.SGD(rate), "mse")
    return nameplate.fit(model, X, Y, validation_data=(X, Y), batch_size=8, epochs=2, seed=seed, run=run)


def test_a_function_is_called_once_for_each_combination(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    grid: dict[str, Any] = {"rate": [0.1, 0.001], "seed": [1, 2]}
    sweep = nameplate.sweep(trained, grid, run=tmp_path / "rates")
    assert [job.state for job in sweep.jobs] == [State.done] * 4
    assert sweep.best.settings["rate"] == 0.1
    assert sweep.best.monitor == "val_loss"
    assert sweep.best.best == pytest.approx(min(sweep.run().history["val_loss"]))
    assert keras.ops.convert_to_numpy(nameplate.load(sweep.home()).predict(X, verbose=0)).shape == (16, 1)
    assert [len(group.jobs) for group in sweep.board.groups] == [2, 2], "jobs that differ in the seed are one group"
    assert "0.1" in sweep._repr_html_()
    before = {job.job: content(sweep.home(job)) for job in sweep.jobs}

    again = nameplate.sweep(trained, {"rate": [0.1, 0.001, 0.01], "seed": [1, 2]}, run=tmp_path / "rates")
    assert [job.attempts for job in again.jobs] == [1] * 6
    for name, tensors in before.items():
        assert_same(content(again.home(name)), tensors)
    capsys.readouterr()
    assert main(["show", str(tmp_path / "rates")]) == 0
    assert "0.001" in capsys.readouterr().out


def test_a_job_trains_the_same_alone_as_after_others(tmp_path: Path) -> None:
    def job(units: int, run: Path) -> keras.callbacks.History:
        inputs = keras.Input((3,))
        model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Dense(units)(inputs)))
        model.compile("sgd", "mse")
        return nameplate.fit(model, X, Y, batch_size=8, run=run, naming="off")

    both = nameplate.sweep(job, {"units": [4, 5]}, run=tmp_path / "both")
    alone = nameplate.sweep(job, {"units": [5]}, run=tmp_path / "alone")
    name = alone.jobs[0].job
    assert_same(content(both.home(name)), content(alone.home(name)))
    assert any("dense/" in key for key in content(alone.home(name)))


def test_a_job_that_fails_is_recorded_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def job(x: int) -> float:
        if x == 1:
            raise ArithmeticError("no answer")
        return float(x)

    sweep = nameplate.sweep(job, {"x": [1, 2, 3]}, run=tmp_path / "s", mode="max")
    assert [(job.settings["x"], job.error) for job in sweep.failed] == [(1, "ArithmeticError: no answer")]
    assert "Traceback" in (sweep.home(sweep.failed[0]) / "failure.txt").read_text()
    assert sweep.best.best == 3.0
    assert "failed: ArithmeticError: no answer" in capsys.readouterr().err
    assert [job.attempts for job in nameplate.sweep(job, {"x": [1, 2, 3]}, run=tmp_path / "s", mode="max").jobs] == [
        2,
        1,
        1,
    ]

    fast = nameplate.sweep(job, {"x": [1, 2, 3]}, run=tmp_path / "fast", fail_fast=True)
    assert [job.state for job in fast.jobs] == [State.failed, State.planned, State.planned]
    with pytest.raises(NameplateError, match=r"No job of the sweep .* has a value[\s\S]*no answer"):
        _ = fast.best


@pytest.mark.parametrize(
    ("returned", "best", "values"),
    [
        (0.5, 0.5, {"value": 0.5}),
        (np.float32(0.5), 0.5, {"value": 0.5}),
        ({"val_accuracy": 0.5, "loss": 2.0}, 0.5, {"val_accuracy": 0.5, "loss": 2.0}),
        ({"loss": float("nan")}, None, {}),
    ],
)
def test_what_a_function_may_return(tmp_path: Path, returned: object, best: float, values: dict[str, float]) -> None:
    def job(x: int) -> object:
        return returned

    (record,) = nameplate.sweep(job, {"x": [1]}, run=tmp_path / "s").jobs
    assert record.state is State.done
    assert record.is_usable == (best is not None)
    if best is not None:
        assert (record.best, dict(record.values)) == (best, values)


def test_what_cannot_be_ranked_is_the_jobs_failure(tmp_path: Path) -> None:
    def job(x: int) -> object:
        return {1: "well", 2: {"a": 1.0, "b": 2.0}, 3: None}[x]

    sweep = nameplate.sweep(job, {"x": [1, 2, 3]}, run=tmp_path / "s")
    first, second, third = (str(record.error) for record in sweep.failed)
    assert "the function returned 'well'" in first
    assert "choose one of what the function returned: a, b" in second
    assert "the function returned None" in third
    other = nameplate.sweep(job, {"x": [2]}, run=tmp_path / "t", monitor="bb")
    assert "'bb' was not returned. Did you mean 'b'?" in str(other.failed[0].error)


def _job(rate: float = 0.1, *, width: int) -> float:
    return rate * width


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grid": {"rte": [1], "width": [1]}}, "the function takes no 'rte'. Did you mean 'rate'?"),
        ({"grid": {"rate": [1]}}, "no value for 'width'"),
        ({"grid": {"width": [1], "run": ["a"]}}, "'run' is the directory"),
        ({"grid": {"width": 1}}, "'width' has 1; give a list of its values"),
        ({"grid": {"width": []}}, "'width' has []; give a list of its values"),
        ({"grid": {"width": "abc"}}, "'width' has 'abc'; give a list"),
        ({"grid": {"width": [object]}}, "width=<class 'object'> cannot be recorded"),
        ({"grid": {"width": [float("nan")]}}, "width=nan cannot be recorded"),
        ({"grid": []}, "grid: it is empty"),
        ({"grid": 3}, "grid=3: give values by key"),
        ({"grid": {1: [1]}}, "1 is not the name of a setting"),
        ({"run": 3}, "run=3"),
        ({"mode": "up"}, "mode='up': there are 'auto', 'min', 'max'"),
        ({"job": 3}, "job=3: a function or a list of strings is needed"),
        ({"job": "model=mlp"}, "job='model=mlp': a function, or a list of overrides"),
        ({"job": ["model=mlp"], "monitor": "loss"}, "they are the overrides checkpoint.monitor"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_anything_runs(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    given: dict[str, Any] = {"job": _job, "grid": {"width": [1]}, "run": tmp_path / "s"} | arguments
    with pytest.raises(NameplateError) as caught:
        nameplate.sweep(**given)
    assert message in str(caught.value)
    assert not (tmp_path / "s").exists()


def test_another_function_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    def other(width: int) -> float:
        return width

    nameplate.sweep(_job, {"width": [1, 2]}, run=tmp_path / "s")
    with pytest.raises(NameplateError, match=r"_job' -> .*other'[\s\S]*choose another directory"):
        nameplate.sweep(other, {"width": [1, 2]}, run=tmp_path / "s")


def test_the_settings_of_each_job_may_be_listed(tmp_path: Path) -> None:
    sweep = nameplate.sweep(_job, [{"width": 1}, {"width": 2, "rate": 0.5}], run=tmp_path / "s")
    assert [dict(job.settings) for job in sweep.jobs] == [{"width": 1}, {"width": 2, "rate": 0.5}]
    assert [job.best for job in sweep.jobs] == [0.1, 1.0]


def test_overrides_are_swept_as_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = [word for word in SMALL if not word.startswith("runs=")]
    sweep = nameplate.sweep(fixed, {"seed": [1, 2]}, run=tmp_path / "s")
    assert [(job.state, job.setting("seed")) for job in sweep.jobs] == [(State.done, 1), (State.done, 2)]
    listed = nameplate.sweep(fixed, [{"seed": 2}, {"seed": 3}], run=tmp_path / "s")
    assert [(job.setting("seed"), job.attempts) for job in listed.jobs] == [(1, 1), (2, 1), (3, 1)]
    assert store.checkpoints(listed.home(listed.best) / "checkpoints")
    with pytest.raises(NameplateError, match=r"model\.wdth"):
        nameplate.sweep(fixed, {"model.wdth": [1]}, run=tmp_path / "s")


class Signal(keras.callbacks.Callback):
    """Send this process a signal at the beginning of the second epoch."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        if epoch == 1:
            os.kill(os.getpid(), self.number)


def adam(rate: float, run: Path, number: int | None = None) -> keras.callbacks.History:
    model = net()
    model.compile(keras.optimizers.Adam(rate), "mse")
    callbacks = [] if number is None else [Signal(number)]
    return nameplate.fit(model, X, Y, batch_size=4, epochs=3, run=run, callbacks=callbacks)


def killed(rate: float, run: Path) -> keras.callbacks.History:
    return adam(rate, run, signal.SIGKILL)


def test_a_script_that_is_stopped_resumes_the_job_that_it_was_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed, then stopped by SIGTERM, then left alone: each job is what it is without any of that."""
    grid = {"rate": [0.1, 0.01]}
    program = f"from {__name__} import *; adam = killed; killed.__qualname__ = 'adam'; "
    program += f"nameplate.sweep(killed, {grid!r}, run={str(tmp_path / 'stopped')!r})"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    ledger = Ledger(tmp_path / "stopped")
    assert [job.state for job in ledger.records()] == [State.interrupted, State.planned]

    def stopped(rate: float, run: Path) -> keras.callbacks.History:
        return adam(rate, run, signal.SIGTERM)

    monkeypatch.setattr(stopped, "__qualname__", "adam")
    with pytest.raises(StoppedError) as caught:
        nameplate.sweep(stopped, grid, run=tmp_path / "stopped")
    assert caught.value.exit_code == 143
    assert [job.state for job in ledger.records()] == [State.interrupted, State.planned]

    sweep = nameplate.sweep(adam, grid, run=tmp_path / "stopped")
    assert [(job.state, job.attempts) for job in sweep.jobs] == [(State.done, 3), (State.done, 1)]
    straight = nameplate.sweep(adam, grid, run=tmp_path / "straight")
    for job in sweep.jobs:
        assert_same(content(sweep.home(job)), content(straight.home(job)))
