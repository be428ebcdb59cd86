"""Optimizers of a model's own, such as a GAN's two, get the gradients of the whole step, as on one device."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import optimizers

import nameplate
from tests.long import cases
from tests.nameplate.engine.replication.data import vectors

OPTIMIZERS: dict[str, Callable[[], keras.Optimizer]] = {
    "clipnorm": lambda: optimizers.SGD(0.1, clipnorm=0.05),
    "global_clipnorm": lambda: optimizers.SGD(0.1, global_clipnorm=0.05),
    "clipvalue": lambda: optimizers.SGD(0.1, clipvalue=0.01),
    "accumulation": lambda: optimizers.SGD(0.1, gradient_accumulation_steps=2),
    "ema": lambda: optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2),
    "decay": lambda: optimizers.AdamW(0.01, weight_decay=0.1),
    "nadam": lambda: optimizers.Nadam(0.01, clipvalue=0.1),
    "loss scaling": lambda: optimizers.LossScaleOptimizer(
        optimizers.SGD(0.1, clipnorm=0.05, gradient_accumulation_steps=2)
    ),
}


class Two(keras.Model):
    """A model in two halves, each with an optimizer of its own that is built by its first step."""

    def __init__(self, make: Callable[[], keras.Optimizer]) -> None:
        super().__init__(name="two")
        self.lower, self.upper = keras.layers.Dense(5, name="lower"), keras.layers.Dense(2, name="upper")
        self.own = [make(), make()]

    def call(self, x: Any) -> Any:
        return self.upper(self.lower(x))

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape(persistent=True) as tape:
            loss = tf.reduce_mean(tf.square(self(x) - y))
            scaled = [optimizer.scale_loss(loss) for optimizer in self.own]
        for layer, optimizer, part in zip((self.lower, self.upper), self.own, scaled, strict=True):
            gradients = tape.gradient(part, layer.trainable_variables)
            optimizer.apply(gradients, layer.trainable_variables)
        return {"loss": loss}


@pytest.mark.parametrize("kind", cases(OPTIMIZERS, short=["global_clipnorm", "ema", "loss scaling"]))
def test_a12_optimizers_of_a_models_own_do_what_they_do_on_one_device(strategy: Any, kind: str) -> None:
    x, y = (each.astype("float32") for each in vectors(20))  # in batches of 8, 8 and 4
    trained = []
    for scope in (nullcontext(), strategy.scope()):
        with scope:
            keras.utils.set_random_seed(0)
            model = Two(OPTIMIZERS[kind])
            model(keras.ops.ones((1, x.shape[1])))
            model.compile("sgd")
        trained.append(model)
    trained[0].fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
    nameplate.fit(trained[1], (x, y), batch_size=8, epochs=3, shuffle=False)
    for alone, mirrored in zip(trained[0].trainable_variables, trained[1].trainable_variables, strict=True):
        # What is left is the order of summation in float32; AdamW and Nadam divide by small gradients.
        np.testing.assert_allclose(mirrored.numpy(), alone.numpy(), rtol=1e-4, atol=1e-6)
