"""Inside a trial nothing is left to chance and nothing is updated; outside all is as it was."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from nameplate.engine import trial
from nameplate.engine.reductions import StepPass, StepReductions, passing
from nameplate.engine.trial import deterministic

DRAWS: dict[str, Any] = {
    "keras normal": lambda: keras.random.normal((3, 2)),
    "keras uniform": lambda: keras.random.uniform((3, 2), minval=-1.0, maxval=3.0),
    "keras truncated": lambda: keras.random.truncated_normal((3, 2)),
    "keras integers": lambda: keras.random.randint((3, 2), 0, 9),
    "noise": lambda: keras.layers.GaussianNoise(1.0)(np.ones((3, 2), "float32"), training=True),
    "dropout": lambda: keras.layers.Dropout(0.5)(np.ones((3, 2), "float32"), training=True),
    "tf normal": lambda: tf.random.normal([3, 2], 1.0, 2.0),
    "tf uniform": lambda: tf.random.uniform((tf.constant(3), 2), maxval=5, dtype=tf.int32),
}


@pytest.mark.parametrize("draw", DRAWS)
def test_random_numbers_are_constants(draw: str) -> None:
    with deterministic():
        drawn = np.asarray(DRAWS[draw]())
    assert drawn.shape == (3, 2)
    assert (drawn == drawn[0, 0]).all()


def test_batch_statistics_are_the_moving_ones_and_no_optimizer_updates() -> None:
    norm, optimizer = keras.layers.BatchNormalization(), keras.optimizers.SGD(1.0)
    x = np.random.default_rng(0).normal(3.0, 2.0, (8, 2)).astype("float32")
    norm.build(x.shape)
    before = [each.numpy() for each in norm.weights]
    with deterministic(), passing(StepPass(StepReductions(), is_trial=True)) as step_pass:
        np.testing.assert_allclose(norm(x, training=True), x / np.sqrt(1.001), rtol=1e-5)
        optimizer.apply_gradients([(tf.ones([2]), norm.gamma)])
    assert [len(gradients) for gradients in step_pass.gradients] == [1]
    for variable, value in zip(norm.weights, before, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-6)  # 0.99 v + 0.01 v


def test_all_of_it_goes_away_with_its_context() -> None:
    def found() -> list[Any]:
        return [getattr(place, name) for place, name, _ in trial._REPLACED]

    before = found()
    with deterministic():
        inside = found()
    assert all(changed is not original for changed, original in zip(inside, before, strict=True))
    with pytest.raises(RuntimeError), deterministic():
        raise RuntimeError
    assert found() == before
