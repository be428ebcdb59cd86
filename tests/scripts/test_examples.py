"""The example scripts do what they say, as a stranger would run them."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest

import nameplate
from nameplate.training.loop import Loop
from scripts.examples import cross_validation, hub, mirrored_keras, mirrored_nameplate
from tests.jobs import CONTEXT
from tests.scripts.regenerate_tour import TOUR, executed
from tests.trainer.running import assert_same, content

EPOCHS = 3  # of 24 steps


def test_the_twin_of_a_keras_script_has_its_numbers(tmp_path: Path, strategy: Any) -> None:
    """Two replicas against stock Keras on one device; in a third epoch, rounding grows beyond what can be compared."""
    import tensorflow as tf

    given = {"epochs": 2, "shuffle": False, "verbose": 0}
    stock = mirrored_keras.train(str(tmp_path / "keras"), tf.distribute.get_strategy(), **given)
    twin = mirrored_nameplate.train(str(tmp_path / "twin"), strategy, **given)
    assert twin.epoch == stock.epoch
    assert twin.history == {name: pytest.approx(series, rel=1e-3) for name, series in stock.history.items()}


def test_the_twin_killed_three_times_ends_as_if_nothing_had_happened(tmp_path: Path, strategy: Any) -> None:
    whole = mirrored_nameplate.train(str(tmp_path / "whole"), strategy, epochs=EPOCHS)
    for step in (7, 26, 61):  # before the first checkpoint, in the second epoch, in the last
        assert _killed(tmp_path / "killed", step) == -signal.SIGKILL
    resumed = mirrored_nameplate.train(str(tmp_path / "killed"), strategy, epochs=EPOCHS)
    assert_same(content(tmp_path / "killed"), content(tmp_path / "whole"))
    assert (resumed.epoch, resumed.history) == (whole.epoch, whole.history)
    for one, other in zip(resumed.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_model_in_the_style_of_keras_hub_is_trained_saved_and_gets_another_head(tmp_path: Path) -> None:
    task, digits = hub.train(str(tmp_path), epochs=1)
    loaded = nameplate.load(tmp_path / "parity.keras")
    assert [type(each) for each in (loaded, loaded.backbone)] == [hub.DigitsClassifier, hub.DigitsBackbone]
    before, after = nameplate.read(task), nameplate.read(digits)
    assert {name for name in after if name not in before} == {"digit/kernel", "digit/bias"}
    assert {name for name in before if name not in after} >= {"logits/kernel", "logits/bias"}
    assert_same(*({name: each[name] for name in before if name.startswith("backbone/")} for each in (before, after)))
    assert type(nameplate.layer(digits, "backbone")) is hub.DigitsBackbone


def test_each_fold_of_a_cross_validation_is_a_run_and_none_is_trained_twice(tmp_path: Path) -> None:
    first = cross_validation.cross_validate(str(tmp_path), count=3, epochs=1)
    assert len({report.values["val_accuracy"] for report in first}) > 1
    again = cross_validation.cross_validate(str(tmp_path), count=3, epochs=1)
    assert [report.history for report in again] == [report.history for report in first]
    assert [report.steps for report in again] == [19, 19, 19]
    held_out = np.concatenate([held for _, held in cross_validation.folds(1797, 3)])
    assert sorted(held_out) == list(range(1797))


def test_the_notebook_runs_and_holds_the_outputs_that_it_has(tmp_path: Path) -> None:
    kept = nbformat.read(TOUR, as_version=4)
    again = executed(tmp_path)
    assert [cell.source for cell in again.cells] == [cell.source for cell in kept.cells]
    assert list(map(_shown, again.cells)) == list(map(_shown, kept.cells))
    assert sum("image/png" in _shown(cell) for cell in kept.cells) == 2
    assert not re.search(r"/(home|root|tmp|usr|work|Users)/", nbformat.writes(kept))


def _shown(cell: nbformat.NotebookNode) -> list[str]:
    """Return what a cell shows: kinds of outputs, and texts without the digits of measured numbers."""
    outputs = cell.get("outputs", [])
    kinds = [kind for output in outputs for kind in sorted(output.get("data", [output.output_type]))]
    texts = [output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs]
    return kinds + [re.sub(r"\d+\.\d+", "#", text) for text in texts]


def _killed(run: Path, step: int) -> int | None:
    """Start the script in a process of its own, which kills itself at this step; return its exit code."""
    process = CONTEXT.Process(target=_train_to, args=(str(run), step))
    process.start()
    process.join()
    return process.exitcode


def _train_to(run: str, step: int) -> None:
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice())
    advance = Loop._advance

    def advance_or_die(self: Loop, reached: int, losses: np.ndarray) -> None:
        advance(self, reached, losses)
        if reached >= step:
            os.kill(os.getpid(), signal.SIGKILL)

    Loop._advance = advance_or_die  # type: ignore[assignment, method-assign]
    mirrored_nameplate.train(run, strategy, epochs=EPOCHS)
