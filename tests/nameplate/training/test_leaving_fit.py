"""A model that leaves `nameplate.fit` is the model that Keras knows."""

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

NUMBERS = np.random.default_rng(0)
X = NUMBERS.normal(size=(16, 6)).astype("float32")
Y = NUMBERS.normal(size=(16, 2)).astype("float32")


def small(scope: Any, optimizer: Callable[[], keras.Optimizer]) -> keras.Model:
    with scope:
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(4, activation="tanh", name="body"), keras.layers.Dense(2, name="head")]
        model = keras.Sequential([keras.Input((6,)), *layers], name="small")
        model.compile(optimizer(), "mse")
    return model


def by_hand(model: keras.Model) -> None:
    """Take three steps as TensorFlow's guide to distributed custom loops does."""

    def step(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(model(x) - y)) / (8 * 2)
        model.optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    strategy = model.distribute_strategy
    steps = tf.function(lambda x, y: strategy.run(step, (x, y)))
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8).repeat().take(3)
    for x, y in strategy.experimental_distribute_dataset(dataset):
        steps(x, y)


def keras_fit(model: keras.Model) -> None:
    model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)


OPTIMIZERS: dict[str, Callable[[], keras.Optimizer]] = {
    "momentum": lambda: optimizers.SGD(0.1, momentum=0.9),
    "adamw": lambda: optimizers.AdamW(0.01, weight_decay=0.1),
    "nadam": lambda: optimizers.Nadam(0.01),
    "loss scaling": lambda: optimizers.LossScaleOptimizer(optimizers.SGD(0.1, momentum=0.9)),
}

GOING_ON = [(kind, keras_fit) for kind in OPTIMIZERS]
# Keras' own LossScaleOptimizer does not run in a loop by hand on replicas.
GOING_ON += [(kind, by_hand) for kind in OPTIMIZERS if kind != "loss scaling"]
# AdamW has slots, as momentum; nadam has variables beside them. Each way of going on keeps one of both kinds.
REPEATING = [("adamw", keras_fit), ("adamw", by_hand), ("nadam", by_hand), ("momentum", keras_fit)]


@pytest.mark.parametrize(
    ("kind", "going_on"),
    [
        pytest.param(
            kind, each, id=f"{kind} {each.__name__}", marks=[pytest.mark.long] if (kind, each) in REPEATING else []
        )
        for kind, each in GOING_ON
    ],
)
def test_a1_what_trains_a_model_after_fit_trains_it_as_one_device(
    strategy: Any, kind: str, going_on: Callable[[keras.Model], None]
) -> None:
    mirrored, alone = small(strategy.scope(), OPTIMIZERS[kind]), small(nullcontext(), OPTIMIZERS[kind])
    nameplate.fit(mirrored, (X, Y), batch_size=8, epochs=2, shuffle=False)
    keras_fit(alone)
    going_on(mirrored)
    going_on(alone)
    for variable, expected in zip(mirrored.trainable_variables, alone.trainable_variables, strict=True):
        first, second = (copy.numpy() for copy in strategy.experimental_local_results(variable.value))
        np.testing.assert_array_equal(first, second, err_msg=variable.path)
        np.testing.assert_allclose(first, expected.numpy(), rtol=1e-4, atol=1e-6)  # the order of summation


def test_a1_fit_leaves_nothing_on_optimizer_layers_and_variables(strategy: Any) -> None:
    model = small(strategy.scope(), OPTIMIZERS["loss scaling"])
    with strategy.scope():
        model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    objects = [model.optimizer, model.optimizer.inner_optimizer, *model.layers, *(each._value for each in variables)]
    classes = [keras.Optimizer, *keras.Optimizer.__mro__, keras.layers.Layer, keras.optimizers.LossScaleOptimizer]
    before = [dict(vars(each)) for each in (*objects, *classes)]
    nameplate.fit(model, (X, Y), batch_size=8, shuffle=False)
    for each, was in zip((*objects, *classes), before, strict=True):
        now = {key: value for key, value in vars(each).items() if key != "_exclude_from_weight_decay_cache"}
        assert now.keys() == was.keys()
        changed = [key for key in was if now[key] is not was[key]]
        assert not changed, (each, changed)
