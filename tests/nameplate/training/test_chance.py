"""What data of the user's own leaves to chance is the run's: the same command gives the same weights, or says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nameplate.training.test_resuming import cut
from tests.trainer.running import assert_same, content, records, train

pytestmark = pytest.mark.usefixtures("strategy")

MODULE = """
import keras
import numpy as np
import tensorflow as tf

source = np.random.default_rng(0)
X, Y = source.normal(size=(24, 9, 4)).astype("float32"), source.integers(0, 3, 24)


def shuffled():
    return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(24)


def longer():
    return {"train": (X, Y), "validation": (np.concatenate([X, X], 1), Y)}


def by_chance():
    def examples():
        return ((X[index], Y[index]) for index in np.random.default_rng().permutation(24))

    signature = (tf.TensorSpec((9, 4), tf.float32), tf.TensorSpec((), tf.int64))
    return tf.data.Dataset.from_generator(examples, output_signature=signature)


def build(input_shape, classes):
    x = keras.Input((None, 4), name="x")
    pooled = keras.layers.GlobalAveragePooling1D(name="pool")(keras.layers.Conv1D(3, 3, name="stem")(x))
    return keras.Model(x, keras.layers.Dense(classes, name="y")(pooled), name="mine")
"""


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (tmp_path / "left_to_chance.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    model = ["model=custom", "model._target_=left_to_chance.build", "trust=[left_to_chance]"]
    return [*model, "data=custom", "data.classes={y: 3}", "fit.epochs=2", "log.every_steps=1"]


def test_a16_a_shuffle_without_a_seed_has_the_runs(tmp_path: Path, options: list[str]) -> None:
    options = [*options, "data._target_=left_to_chance.shuffled", "checkpoint.every_steps=2"]
    runs = [tmp_path / name for name in "abc"]
    for run, seed in zip(runs, (1, 1, 2), strict=True):
        train(tmp_path, *options, f"run={run.name}", f"seed={seed}")
    whole = content(runs[0])
    assert_same(whole, content(runs[1]))
    assert records(runs[0])[0]["step_loss"] != records(runs[2])[0]["step_loss"]
    cut(runs[0], 4)
    train(tmp_path, *options, "run=a", "seed=1")
    assert_same(whole, content(runs[0]))


def test_a16_an_order_that_no_seed_decides_is_said(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, *options, "data._target_=left_to_chance.by_chance", "run=a")
    assert "data: two passes begin with different examples" in capsys.readouterr().out


def test_b3_longer_sequences_are_validated_on(tmp_path: Path, options: list[str]) -> None:
    train(tmp_path, *options, "data._target_=left_to_chance.longer", "run=a")
    assert "val_loss" in records(tmp_path / "a")[-1]
