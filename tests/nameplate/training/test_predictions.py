"""Predictions on two replicas are Keras' own, whatever they are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import nameplate
from nameplate.engine import host_collectives
from nameplate.engine.graph import gathered
from nameplate.errors import NameplateError

X = np.random.default_rng(0).normal(size=(11, 3)).astype("float32")  # in steps of 4: 2 and 2, 2 and 1
DTYPES = [
    "bool",
    "bfloat16",
    "float16",
    "float64",
    "uint8",
    "int8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "complex64",
    "float8_e4m3fn",
]


class Computes(keras.layers.Layer):
    """A function of the inputs, whose outputs are of any dtype."""

    def __init__(self, function: Callable[[Any], Any], dtype: str, shape: tuple[int | None, ...] = (None, 3)) -> None:
        super().__init__(name="computes")
        self.function, self.of, self.shape = function, dtype, shape

    def call(self, x: Any) -> Any:
        return self.function(x)

    def compute_output_spec(self, x: Any) -> keras.KerasTensor:
        del x
        return keras.KerasTensor(self.shape, self.of)


def model_of(function: Callable[[Any], Any], dtype: str, **options: Any) -> keras.Model:
    inputs = keras.Input((3,), name="x")
    return keras.Model(inputs, Computes(function, dtype, **options)(inputs), name="model")


def cast(dtype: str) -> Callable[[Any], Any]:
    return lambda x: x > 0 if dtype == "bool" else tf.cast(tf.abs(10 * x), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_b6_outputs_of_any_dtype_are_predicted(strategy: Any, dtype: str) -> None:
    expected = model_of(cast(dtype), dtype).predict(X, batch_size=4, verbose=0)
    with strategy.scope():
        model = model_of(cast(dtype), dtype)
    found = nameplate.predict(model, X, batch_size=4)
    assert (found.dtype, found.shape) == (expected.dtype, (11, 3))
    assert found.tobytes() == expected.tobytes()


def test_b6_text_is_predicted(strategy: Any) -> None:
    with strategy.scope():
        model = model_of(lambda x: tf.strings.as_string(tf.round(x)), "string")
    found = nameplate.predict(model, X, batch_size=4)
    assert found.tolist() == tf.strings.as_string(tf.round(X)).numpy().tolist()


def test_b6_a_model_in_bfloat16_predicts(strategy: Any) -> None:
    with strategy.scope():
        dense = keras.layers.Dense(2, name="dense_of_bfloat16", dtype="mixed_bfloat16")
        model = keras.Sequential([keras.Input((3,)), dense], name="model")
    found = nameplate.predict(model, X, batch_size=4)
    assert found.dtype == "bfloat16"
    # 8 bits a number.
    np.testing.assert_allclose(found.astype("float32"), X @ dense.kernel.numpy(), rtol=0.02, atol=0.02)


def test_b6_a_single_number_for_a_batch_is_refused(strategy: Any) -> None:
    with strategy.scope():
        model = model_of(tf.reduce_sum, "float32", shape=())
    with pytest.raises(NameplateError, match="predictions have a row an example"):
        nameplate.predict(model, X, batch_size=4)


def test_b6_what_workers_cannot_exchange_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_collectives, "several_workers", lambda: True)
    with pytest.raises(NameplateError, match="predictions of string cannot be gathered from several workers"):
        gathered(tf.constant(["a"]))
