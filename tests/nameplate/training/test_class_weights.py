"""`class_weight`: labels in every form have the weights that `model.fit` gives them on one device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import nameplate
from nameplate.engine.compile import class_weights, weighted_by_class
from nameplate.errors import NameplateError

NUMBERS = np.random.default_rng(4)
WEIGHTS = {0: 0.5, 1: 2.0, 2: 7.0}
SAME: Any = {"rtol": 1e-5, "atol": 1e-6}  # of float32: two replicas add up in another order than one device


def dense(units: int, loss: Any, shape: tuple[int, ...] = (4,)) -> Callable[[], keras.Model]:
    def build() -> keras.Model:
        model = keras.Sequential([keras.Input(shape), keras.layers.Dense(units, name="head")], name="small")
        model.compile("sgd", loss, weighted_metrics=["mse"] if loss == "mse" else None)
        return model

    return build


def x(*shape: int) -> np.ndarray:
    return NUMBERS.normal(size=shape).astype("float32")


def labels(*shape: int, lowest: int = 0) -> np.ndarray:
    return NUMBERS.integers(lowest, 3, shape)


SPARSE = {"from_logits": True, "ignore_class": -1}


def sparse() -> keras.losses.Loss:
    return keras.losses.SparseCategoricalCrossentropy(**SPARSE)


ONE_HOT = "categorical_crossentropy"
CASES: dict[str, tuple[Callable[[], keras.Model], np.ndarray, np.ndarray, bool]] = {
    "floats that are nearly whole": (dense(1, "mse"), x(20, 4), NUMBERS.choice([0.1, 0.9, 1.6], (20, 1)), False),
    "floats without an axis": (dense(1, "mse"), x(20, 4), NUMBERS.choice([0.4, 1.4], 20), False),
    "one-hot": (dense(3, ONE_HOT), x(20, 4), np.eye(3)[labels(20)], False),
    "labels (n, 1)": (dense(3, sparse()), x(20, 4), labels(20, 1), False),
    "labels to ignore": (dense(3, sparse()), x(20, 4), labels(20, lowest=-1), False),
    "masks of segments": (dense(3, sparse(), (3, 3, 4)), x(20, 3, 3, 4), labels(20, 3, 3, 1), True),
    "one-hot sequences": (dense(3, ONE_HOT, (5, 4)), x(20, 5, 4), np.eye(3)[labels(20, 5)], True),
}


@pytest.mark.parametrize("case", CASES)
def test_a6_labels_have_the_weights_that_keras_gives_them(strategy: Any, case: str) -> None:
    build, inputs, targets, needs_dataset = CASES[case]
    found = []
    for by, scope in ((nameplate.fit, strategy.scope()), (keras.Model.fit, keras.name_scope("alone"))):
        with scope:
            keras.utils.set_random_seed(1)
            model = build()
        if needs_dataset:  # of arrays, Keras takes only one label an example
            given: Any = {"x": tf.data.Dataset.from_tensor_slices((inputs, targets)).batch(8)}
        else:
            given = {"x": inputs, "y": targets, "batch_size": 8}
        history = by(model, **given, class_weight=WEIGHTS, shuffle=False, epochs=2, verbose=0).history
        found.append([model.get_layer("head").kernel.numpy(), *history.values()])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, **SAME)


def test_a6_masks_of_arrays_are_those_of_datasets(strategy: Any) -> None:
    build, inputs, targets, _ = CASES["masks of segments"]
    kernels = []
    for data in ((inputs, targets), tf.data.Dataset.from_tensor_slices((inputs, targets)).batch(8)):
        with strategy.scope():
            keras.utils.set_random_seed(1)
            model = build()
        nameplate.fit(model, data, batch_size=8, class_weight=WEIGHTS, shuffle=False)
        kernels.append(model.get_layer("head").kernel.numpy())
    np.testing.assert_array_equal(*kernels)


def test_a6_sequences_of_labels_are_labels_where_the_output_has_the_axis_of_classes() -> None:
    vector = class_weights(WEIGHTS)
    assert vector is not None
    y = tf.constant([[0, 2, 1], [2, 2, 0]])
    np.testing.assert_array_equal(weighted_by_class(y, None, vector, rank=3), [[0.5, 7, 2], [7, 7, 0.5]])
    np.testing.assert_array_equal(weighted_by_class(y, None, vector, rank=2), [2, 0.5])  # one-hot: argmax 1 and 0


@pytest.mark.parametrize("weight", [[2.0, 3.0], [[2.0], [3.0]]], ids=["(n,)", "(n, 1)"])
def test_a6_weights_of_examples_multiply_those_of_their_labels(weight: Any) -> None:
    vector = class_weights(WEIGHTS)
    assert vector is not None
    held = tf.constant(weight)
    of_one = weighted_by_class(tf.constant([1, 9]), held, vector, rank=2)
    np.testing.assert_array_equal(of_one, [4.0, 3.0])
    of_many = weighted_by_class(tf.constant([[[0], [1]], [[-1], [2]]]), held, vector, rank=3)
    np.testing.assert_array_equal(of_many, [[1.0, 4.0], [3.0, 21.0]])


def test_a6_weights_of_classes_without_a_target_for_them_are_refused(strategy: Any) -> None:
    with strategy.scope():
        inputs = keras.Input((4,))
        two = keras.Model(inputs, [keras.layers.Dense(3, name=name)(inputs) for name in ("one", "other")])
        two.compile("sgd", sparse())
        one = dense(3, sparse())()
    with pytest.raises(NameplateError, match="class_weight: the data has 2 targets"):
        nameplate.fit(two, x(8, 4), [labels(8), labels(8)], class_weight=WEIGHTS)
    with pytest.raises(NameplateError, match=r"class_weight.*no targets"):
        nameplate.fit(one, x=x(8, 4), class_weight=WEIGHTS)
