"""Inputs are scaled by the statistics of the training data, which are weights of a named layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import nameplate
from nameplate.data import DataError, examples, standardized
from nameplate.graph.functional import SurgeryError
from tests.nameplate.data.test_user_data import Rows

NUMBERS = np.random.default_rng(0)
X = (NUMBERS.normal(size=(3000, 3)) * [1, 1000, 0.01] + [0, 1e6, -5]).astype("float32")
Y = NUMBERS.integers(0, 2, 3000)


def network(shape: tuple[int, ...] = (3,), name: str = "x") -> keras.Model:
    inputs = keras.Input(shape, name=name)
    flat = keras.layers.Flatten(name="flat")(inputs)
    return keras.Model(inputs, keras.layers.Dense(2, name="label")(flat), name="net")


def statistics(model: keras.Model, layer: str) -> tuple[np.ndarray, np.ndarray]:
    weights = nameplate.read(model)
    return weights[f"{layer}/mean"], weights[f"{layer}/variance"]


WAYS: dict[str, Callable[[], Any]] = {
    "arrays": lambda: (X, Y),
    "inputs alone": lambda: X,
    "batches": lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(700),
    "single examples": lambda: examples(tf.data.Dataset.from_tensor_slices((X, Y)), batched=False),
    "by name": lambda: ({"x": X}, Y),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_statistics_are_those_of_all_examples(way: str) -> None:
    model = network()
    scaled = standardized(model, WAYS[way]())
    assert "x_normalization" not in nameplate.layers(model)
    mean, variance = statistics(scaled, "x_normalization")
    np.testing.assert_allclose(mean, X.astype("float64").mean(0), rtol=1e-6)
    np.testing.assert_allclose(variance, X.astype("float64").var(0), rtol=1e-6)
    expected = (X - X.astype("float64").mean(0)) / X.astype("float64").std(0)
    np.testing.assert_allclose(
        scaled.predict(X, verbose=0), model.predict(expected.astype("float32"), verbose=0), atol=1e-3
    )


def test_a_sequential_model_is_scaled_whatever_its_input_is_called() -> None:
    model = keras.Sequential([keras.Input((3,), name="table"), keras.layers.Dense(1, name="out")], name="net")
    assert list(nameplate.layers(standardized(model, (X, Y))))[-2:] == ["table_normalization", "out"]


def test_examples_by_index_are_read_some_at_a_time() -> None:
    data = examples(Rows(), inputs="x", targets="y")
    rows = np.asarray(data.load(tf.range(data.size, dtype=tf.int64))[0], "float64")
    mean, _ = statistics(standardized(network((4,)), data), "x_normalization")
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-5, atol=1e-6)


def test_a_constant_feature_is_shifted_and_not_scaled() -> None:
    x = X.copy()
    x[:, 1] = 0.1
    _, variance = statistics(standardized(network(), x), "x_normalization")
    assert variance[1] == 1
    assert variance[0] != 1


def test_an_image_has_statistics_for_each_channel() -> None:
    images = NUMBERS.normal(size=(20, 4, 4, 3)).astype("float32")
    mean, _ = statistics(standardized(network((4, 4, 3)), images), "x_normalization")
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)), rtol=1e-4)


def test_only_inputs_of_floats_are_scaled() -> None:
    tokens, number = keras.Input((5,), dtype="int64", name="tokens"), keras.Input((1,), name="number")
    both = keras.layers.Concatenate(name="both")([keras.ops.cast(tokens, "float32"), number])
    model = keras.Model({"tokens": tokens, "number": number}, keras.layers.Dense(1, name="out")(both), name="net")
    data = {"tokens": np.ones((8, 5), "int64"), "number": np.arange(8.0, dtype="float32")[:, None]}
    scaled = standardized(nameplate.enforce(model, "repair"), (data, np.zeros(8)))
    assert [name for name in nameplate.layers(scaled) if "normalization" in name] == ["number_normalization"]


WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "integers": (lambda: standardized(network(), Y[:, None]), DataError, r"no input holds floats .*: x int64 \(1,\)"),
    "an unknown input": (
        lambda: standardized(network(name="table"), {"table": X}, inputs=["tabel"]),
        DataError,
        "no input 'tabel'. Did you mean 'table'",
    ),
    "NaN": (
        lambda: standardized(network(), np.where(X > 1.0001e6, np.nan, X)),
        DataError,
        "'x' has NaN or infinite values among the examples 0 to 1023",
    ),
    "no end": (
        lambda: standardized(network(), tf.data.Dataset.from_tensors((X, Y)).repeat()),
        DataError,
        "a dataset without an end has no mean",
    ),
    "no graph": (lambda: standardized(Subclassed(name="own"), X), SurgeryError, "'own' cannot be edited"),
}


class Subclassed(keras.Model):
    def call(self, x: Any) -> Any:
        return x


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_scaled_is_refused_in_words(case: str) -> None:
    call, kind, message = WRONG[case]
    with pytest.raises(kind, match=f"(?s){message}"):
        call()
