"""What is private in Keras and TensorFlow behaves as trainer/replicas/keras_private.py needs it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.replicas import keras_private


def small_model(optimizer: keras.Optimizer) -> keras.Model:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="dense_a")], name="small")
    model.compile(optimizer, loss="mse")
    model.optimizer.build(model.trainable_variables)
    return model


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
        keras_private.update_locally(mirrored.optimizer)
        for variable, value in zip(mirrored.trainable_variables, start, strict=True):
            variable.assign(value)

        @tf.function
        def step(first: Any, second: Any) -> None:
            strategy.run(lambda: mirrored.optimizer.apply([first, second], mirrored.trainable_variables))

        for first, second in gradients:
            step(first, second)
        pairs = zip(
            [*mirrored.trainable_variables, *mirrored.optimizer.variables],
            [*alone.trainable_variables, *alone.optimizer.variables],
            strict=True,
        )
        for variable, expected in pairs:
            for copy in keras_private.copies(variable):
                np.testing.assert_array_equal(copy.numpy(), expected.numpy(), err_msg=variable.path)


def test_replicas_draw_differently_and_the_first_as_one_device(strategy: Any) -> None:
    def draw(generator: keras.random.SeedGenerator) -> Any:
        return keras.random.uniform((4,), seed=generator)

    alone = draw(keras.random.SeedGenerator(7)).numpy()
    with strategy.scope():
        generator = keras.random.SeedGenerator(7)

        @tf.function
        def step() -> Any:
            with keras_private.as_one_device():
                return strategy.run(lambda: draw(generator))

        first, second = (each.numpy() for each in strategy.experimental_local_results(step()))
        states = [copy.numpy().tolist() for copy in keras_private.copies(generator.state)]
    np.testing.assert_array_equal(first, alone)
    assert not np.array_equal(first, second)
    assert states[0] == states[1] == [7, 1]


def test_without_as_one_device_replicas_draw_the_same(strategy: Any) -> None:
    with strategy.scope():
        generator = keras.random.SeedGenerator(7)
        drawn = tf.function(lambda: strategy.run(lambda: keras.random.uniform((4,), seed=generator)))()
    first, second = strategy.experimental_local_results(drawn)
    np.testing.assert_array_equal(first, second)


def test_the_stream_patch_goes_away_with_its_context() -> None:
    before = keras.random.SeedGenerator.next
    with pytest.raises(RuntimeError), keras_private.as_one_device():
        raise RuntimeError
    assert keras.random.SeedGenerator.next is before


def test_a_train_step_of_the_users_own_is_seen() -> None:
    class Own(keras.Model):
        def train_step(self, data: Any) -> Any:
            return {}

    assert keras_private.overridden(Own(), "train_step")
    assert not keras_private.overridden(keras.Sequential(), "train_step")
    assert not keras_private.overridden(Own(), "test_step")


def test_metrics_and_losses_exist_before_the_first_step() -> None:
    model = small_model(keras.optimizers.SGD(0.1))
    keras_private.build_compiled(model, (keras.KerasTensor((None, 3)), keras.KerasTensor((None, 2))))
    assert keras_private.loss_tracker(model) in model.metrics
    assert list(model.get_metrics_result()) == ["loss"]
    assert keras_private.takes_training(model)
    assert keras_private.built_for(model.optimizer) == model.trainable_variables
