"""Optimizers do on every replica what one device does."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from nameplate.engine.private.compiled import copies
from nameplate.engine.private.optimizers import learning_at, learning_rate_of, updating_locally
from tests.nameplate.engine.private.small import small_model

OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(0.1),
    "decay": lambda: keras.optimizers.AdamW(0.1, weight_decay=0.1),
    "ema": lambda: keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2),
    "accumulation": lambda: keras.optimizers.Adam(0.1, gradient_accumulation_steps=2),
    "loss scaling": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.1)),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_local_update_is_what_one_device_does(strategy: Any, kind: str) -> None:
    gradients = [[np.full((3, 2), 0.5, "float32"), np.full((2,), -1.0, "float32")]] * 5
    alone = small_model(OPTIMIZERS[kind]())
    start = [variable.numpy() for variable in alone.trainable_variables]
    for each in gradients:
        alone.optimizer.apply([tf.constant(part) for part in each], alone.trainable_variables)
    with strategy.scope():
        mirrored = small_model(OPTIMIZERS[kind]())
        for variable, value in zip(mirrored.trainable_variables, start, strict=True):
            variable.assign(value)

        @tf.function
        def step(first: Any, second: Any) -> None:
            strategy.run(lambda: mirrored.optimizer.apply([first, second], mirrored.trainable_variables))

        with updating_locally():
            for first, second in gradients:
                step(first, second)
        pairs = zip(
            [*mirrored.trainable_variables, *mirrored.optimizer.variables],
            [*alone.trainable_variables, *alone.optimizer.variables],
            strict=True,
        )
        for variable, expected in pairs:
            for copy in copies(variable):
                # Two programs: a graph may multiply constants first, and round once less, in each of five updates.
                np.testing.assert_allclose(copy.numpy(), expected.numpy(), 1e-6, 1e-7, err_msg=variable.path)


def test_learning_at_is_told_by_the_configuration_and_gives_the_old_rate_back() -> None:
    schedule = keras.optimizers.schedules.CosineDecay(0.5, 10)
    for rate in (0.25, keras.optimizers.schedules.CosineDecay(0.25, 10)):
        optimizer = keras.optimizers.SGD(rate)
        before, held = optimizer.get_config(), learning_rate_of(optimizer)
        with learning_at(optimizer, schedule):
            assert optimizer.get_config()["learning_rate"]["config"]["initial_learning_rate"] == 0.5
        assert optimizer.get_config() == before
        assert learning_rate_of(optimizer) is held
