"""Small tensors as one: what comes out is what would have come out of each by itself."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from nameplate.engine.packing import SMALL, packed
from nameplate.engine.private.optimizers import updating_locally

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


OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
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


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=[f"{name} {list(each)}" for name, each in OPTIMIZERS])
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
