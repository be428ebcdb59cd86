"""Sparse examples train as Keras trains on them; what cannot be divided among replicas is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import nameplate
from nameplate.data.sparse import sparse_rows
from nameplate.errors import NameplateError

NUMBERS = np.random.default_rng(6)
X = (NUMBERS.normal(size=(20, 6)) * (NUMBERS.random((20, 6)) < 0.3)).astype("float32")  # some rows are empty
Y = NUMBERS.normal(size=(20, 2)).astype("float32")
SAME: Any = {"rtol": 1e-5, "atol": 1e-6}  # of float32: a dense product adds up in another order than a sparse one


class Compressed:
    """Compressed sparse rows as SciPy has them, which is not installed for the tests."""

    def __init__(self, array: np.ndarray) -> None:
        rows, self.indices = np.nonzero(array)
        self.data, self.shape = array[rows, self.indices], array.shape
        self.indptr = np.searchsorted(rows, np.arange(len(array) + 1))

    def tocsr(self) -> Compressed:
        return self


Compressed.__module__ = "scipy.sparse._csr"


def tensor() -> tf.SparseTensor:
    return tf.sparse.from_dense(X)


FORMS: dict[str, tuple[Callable[[], dict[str, Any]], bool]] = {
    "a sparse tensor": (lambda: {"x": tensor(), "y": Y, "batch_size": 8}, True),
    "a dataset": (lambda: {"x": tf.data.Dataset.from_tensor_slices((tensor(), Y)).batch(8)}, True),
    "SciPy's": (lambda: {"x": Compressed(X.astype("float64")), "y": Y, "batch_size": 8}, False),
}


@pytest.mark.parametrize("form", FORMS)
def test_b5_sparse_examples_train_as_keras_trains_on_them(strategy: Any, form: str) -> None:
    given, keras_takes_it = FORMS[form]
    found = []
    for by, scope in ((nameplate.fit, strategy.scope()), (keras.Model.fit, keras.name_scope("alone"))):
        with scope:
            keras.utils.set_random_seed(1)
            stack = [keras.Input((6,), sparse=True), keras.layers.Dense(2, name="head")]
            model = keras.Sequential(stack, name="sparse")
            model.compile("sgd", "mse")
        ours = by is nameplate.fit
        arguments = given() if ours or keras_takes_it else {"x": tensor(), "y": Y, "batch_size": 8}
        history = by(model, **arguments, shuffle=False, epochs=2, verbose=0).history
        found.append([model.get_layer("head").kernel.numpy(), history["loss"]])
        if ours:
            predicted = nameplate.predict(model, x=given()["x"], batch_size=8)
            np.testing.assert_allclose(predicted, X @ found[0][0] + model.get_layer("head").bias.numpy(), **SAME)
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, **SAME)


def test_b5_a_share_of_sparse_examples_is_held_out(strategy: Any) -> None:
    histories = []
    for x in (tensor(), X):
        with strategy.scope():
            keras.utils.set_random_seed(1)
            model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2, name="head")], name="small")
            model.compile("sgd", "mse")
        histories.append(nameplate.fit(model, x, Y, batch_size=4, validation_split=0.2).history)
    assert histories[0]["loss"] == pytest.approx(histories[1]["loss"], rel=1e-6)
    assert histories[0]["val_loss"] == pytest.approx(histories[1]["val_loss"], rel=1e-6)


def test_b5_rows_of_any_order_and_rank_are_the_dense_ones() -> None:
    whole = NUMBERS.integers(0, 2, (5, 3, 4))
    for sparse, expected in ((tf.sparse.from_dense(whole), whole), (Compressed(X), X), (tensor(), X)):
        rows = sparse_rows(sparse)
        assert rows is not None
        order = np.array([4, 0, 0, 2])
        np.testing.assert_array_equal(rows.rows(order), expected[order])
        assert rows.rows(order[:0]).shape == (0, *expected.shape[1:])
        assert (len(rows), rows.ndim, rows.shape) == (len(expected), expected.ndim, expected.shape[1:])
    assert sparse_rows(X) is None


MISTAKES: dict[str, tuple[Callable[[keras.Model], Any], str]] = {
    "a dataset of datasets": (
        lambda model: nameplate.fit(model, tf.data.Dataset.range(9).window(3)),
        "data: elements of DatasetSpec cannot be divided among replicas",
    ),
    "lengths": (lambda model: nameplate.fit(model, tensor(), Y[:9]), r"\[20, 9\] examples"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_b5_what_has_no_rows_is_refused(strategy: Any, mistake: str) -> None:
    act, says = MISTAKES[mistake]
    with strategy.scope():
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2, name="head")], name="small")
        model.compile("sgd", "mse")
    with pytest.raises(NameplateError, match=says):
        act(model)
