"""Layers in float8 train on replicas as on one device: scales and largest magnitudes are those of the whole step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import keras
import numpy as np
import pytest
from keras import optimizers

import nameplate
from tests.long import cases

NUMBERS = np.random.default_rng(0)
X = NUMBERS.normal(size=(20, 6)).astype("float32")
Y = NUMBERS.normal(size=(20, 2)).astype("float32")


def quantized(scope: Any, optimizer: Callable[[], keras.Optimizer]) -> keras.Model:
    with scope:
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(4, activation="tanh", name="body"), keras.layers.Dense(2, name="head")]
        model = keras.Sequential([keras.Input((6,)), *layers], name="small")
        for layer in model.layers:
            layer.quantize("float8")
        model.compile(optimizer(), "mse")
    return model


OPTIMIZERS: dict[str, Callable[[], keras.Optimizer]] = {
    "momentum": lambda: optimizers.SGD(0.01, momentum=0.9),
    "accumulation": lambda: optimizers.Adam(0.01, gradient_accumulation_steps=2),
    "loss scaling": lambda: optimizers.LossScaleOptimizer(optimizers.SGD(0.01, clipnorm=1.0)),
}


@pytest.mark.parametrize("kind", cases(OPTIMIZERS, short=["momentum", "loss scaling"]))
def test_a17_what_is_overwritten_is_the_same_on_any_number_of_replicas(strategy: Any, kind: str) -> None:
    usual: dict[str, Any] = {"batch_size": 8, "epochs": 3, "shuffle": False}  # 8, 8 and 4 examples
    alone, mirrored = (quantized(each, OPTIMIZERS[kind]) for each in (nullcontext(), strategy.scope()))
    alone.fit(X, Y, verbose=0, **usual)
    nameplate.fit(mirrored, X, Y, **usual)
    for variable, expected in zip(mirrored.trainable_variables, alone.trainable_variables, strict=True):
        copies = [copy.numpy() for copy in strategy.experimental_local_results(variable.value)]
        np.testing.assert_array_equal(copies[0], copies[1], err_msg=variable.path)
        # A rounding that falls to the other side is 1/8 of a number in float8, of one number in many.
        np.testing.assert_allclose(copies[0], expected.numpy(), rtol=2e-3, atol=2e-3, err_msg=variable.path)


def test_b5_averages_pass_over_what_has_none(strategy: Any) -> None:
    """Keras itself fails at the end of such a training."""
    with strategy.scope():
        model = quantized(nullcontext(), lambda: optimizers.AdamW(0.01, use_ema=True, global_clipnorm=0.1))
    nameplate.fit(model, X, Y, batch_size=8, epochs=2)
    body, (average, *_) = model.layers[0], model.optimizer._model_variables_moving_average
    np.testing.assert_array_equal(body.kernel.numpy(), average.numpy())
    assert body.inputs_scale.numpy() != 1.0
