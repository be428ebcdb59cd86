"""Optimizers do on every replica what one device does, and with small variables as one what they do with each."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from nameplate.engine.collectives import SMALL, packed
from nameplate.engine.local_updates import updating_locally
from nameplate.engine.private import copies
from tests.nameplate.engine.small import small_model

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


NUMBERS = np.random.default_rng(0)
SHAPES = [(3, 4), (4,), (), (SMALL + 1,), (2, 2, 2)]


def test_small_tensors_of_a_dtype_go_through_as_one_and_come_out_in_their_places() -> None:
    values = [tf.constant(NUMBERS.normal(size=shape), tf.float32) for shape in SHAPES]
    rows = tf.IndexedSlices(tf.ones((1, 2)), tf.constant([0]), tf.constant([3, 2]))
    seen: list[Any] = []

    def change(pieces: list[Any]) -> list[Any]:
        seen.extend(pieces)
        return [each if isinstance(each, tf.IndexedSlices) else 2 * each for each in pieces]

    changed = packed(change, [values[0], rows, *values[1:], tf.constant([1, 2])])
    assert [tuple(each.shape) for each in seen] == [(12 + 4 + 1 + 8,), (3, 2), (SMALL + 1,), (2,)]
    assert changed[1] is rows
    for before, after in zip(values, [changed[0], *changed[2:-1]], strict=True):
        np.testing.assert_array_equal(after, 2 * before.numpy())


SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "clipnorm": 0.5}),
    ("Adam", {"amsgrad": True, "weight_decay": 0.1}),
    ("AdamW", {"global_clipnorm": 1.0, "use_ema": True, "ema_overwrite_frequency": 2}),
    ("RMSprop", {"momentum": 0.5, "centered": True}),
    ("Lion", {}),
    ("Adam", {"gradient_accumulation_steps": 2}),
    ("Nadam", {}),
    ("Adafactor", {}),
]


@pytest.mark.parametrize(("name", "options"), SETTINGS, ids=[f"{name} {list(each)}" for name, each in SETTINGS])
def test_an_update_of_small_variables_as_one_is_keras_own(name: str, options: dict[str, Any]) -> None:
    starts = [NUMBERS.normal(size=shape).astype("float32") for shape in SHAPES]
    steps = [[NUMBERS.normal(size=shape).astype("float32") for shape in SHAPES] for _ in range(4)]

    def updated(*, as_one: bool) -> list[np.ndarray]:
        variables = [keras.Variable(start, name=f"v{place}") for place, start in enumerate(starts)]
        optimizer = getattr(keras.optimizers, name)(learning_rate=0.1, **options)
        optimizer.build(variables)
        apply = tf.function(lambda gradients: optimizer.apply(gradients, variables))
        with updating_locally() if as_one else nullcontext():
            for gradients in steps:
                apply([tf.constant(each) for each in gradients])
        return [each.numpy() for each in [*variables, *optimizer.variables]]

    for keras_own, own in zip(updated(as_one=False), updated(as_one=True), strict=True):
        np.testing.assert_allclose(own, keras_own, rtol=1e-6, atol=1e-7)
