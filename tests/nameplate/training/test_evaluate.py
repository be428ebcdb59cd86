"""`nameplate.evaluate`, `nameplate.predict`: one device's numbers on sets of any size, each example once, in order."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import nameplate
from nameplate.errors import NameplateError

NUMBERS = np.random.default_rng(0)
X = NUMBERS.normal(size=(9, 4)).astype("float32")
Y = NUMBERS.normal(size=(9, 2)).astype("float32")


@pytest.fixture(scope="module")
def model(strategy: Any) -> keras.Model:
    """A compiled model on two replicas, with batch statistics and dropout that must rest."""
    with strategy.scope():
        layers = [keras.layers.BatchNormalization(name="norm"), keras.layers.Dropout(0.5, name="drop")]
        model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(2, name="head")], name="small")
        model.compile("sgd", "mse", metrics=["mae"], weighted_metrics=["mse"])
    return model


def outputs(model: keras.Model) -> Any:
    """Return what the model makes of all examples, computed by hand."""
    return X / np.sqrt(1 + 1e-3) @ model.get_layer("head").kernel.numpy()


@pytest.mark.parametrize("size", [1, 3, 7, 8, 9])
def test_a_set_of_any_size_is_seen_once_and_in_order(model: keras.Model, size: int) -> None:
    expected, weight = outputs(model)[:size], np.arange(1, size + 1, dtype="float32")
    predicted = nameplate.predict(model, X[:size], batch_size=4)
    np.testing.assert_allclose(predicted, expected, rtol=1e-5, atol=1e-6)
    measured = nameplate.evaluate(model, (X[:size], Y[:size], weight), batch_size=4)
    squares = np.mean(np.square(expected - Y[:size]), axis=1)
    assert measured == pytest.approx(
        {
            "loss": np.mean(weight * squares),
            "mae": np.mean(np.abs(expected - Y[:size])),
            "mse": np.average(squares, weights=weight),
        },
        rel=1e-5,
    )


FORMS: dict[str, Any] = {
    "targets beside it": lambda: (X, Y),
    "a dataset of inputs": lambda: tf.data.Dataset.from_tensor_slices(X).batch(4),
    "a dataset with targets, in batches that do not divide": lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(
        3
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_inputs_come_in_any_form(model: keras.Model, form: str) -> None:
    np.testing.assert_allclose(nameplate.predict(model, FORMS[form]()), outputs(model), rtol=1e-5, atol=1e-6)


def test_several_inputs_and_outputs_keep_their_structure_and_need_no_compile(strategy: Any) -> None:
    with strategy.scope():
        inputs = {name: keras.Input((4,), name=name) for name in ("left", "right")}
        both = keras.layers.Add(name="add")(list(inputs.values()))
        model = keras.Model(inputs, {"sum": both, "left": keras.layers.Rescaling(2.0, name="twice")(inputs["left"])})
    found = nameplate.predict(model, {"left": X, "right": X[::-1]}, batch_size=5)
    np.testing.assert_array_equal(found["sum"], X + X[::-1])
    np.testing.assert_array_equal(found["left"], 2 * X)


class OwnSteps(keras.Model):
    """A model that says itself how it predicts and what is measured."""

    def __init__(self) -> None:
        super().__init__(name="own")
        self.head = keras.layers.Dense(2, name="head")

    def call(self, x: Any) -> Any:
        return self.head(x)

    def predict_step(self, data: Any) -> Any:
        return -self(data)  # as Keras: x alone comes bare

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return super().compute_metrics(x, y, y_pred + 1.0, sample_weight)


def test_a_models_own_steps_are_honoured(strategy: Any) -> None:
    with strategy.scope():
        model = OwnSteps()
        model.compile("sgd", "mse", metrics=["mae"])
    predicted = nameplate.predict(model, X, batch_size=4)
    made = X @ model.head.kernel.numpy()
    np.testing.assert_allclose(predicted, -made, rtol=1e-5)
    measured = nameplate.evaluate(model, (X, Y), batch_size=4)
    assert measured["mae"] == pytest.approx(np.mean(np.abs(made + 1 - Y)), rel=1e-5)
    assert measured["loss"] == pytest.approx(np.mean(np.square(made - Y)), rel=1e-5)


def test_what_replicas_keep_apart_is_averaged_and_then_their_own_again(strategy: Any) -> None:
    with strategy.scope():
        norm = keras.layers.BatchNormalization(name="norm")
        model = keras.Sequential([keras.Input((4,)), norm], name="apart")
    copies = strategy.experimental_local_results(norm.moving_mean.value)
    for copy, value in zip(copies, (1.0, 3.0), strict=True):
        copy.assign(tf.fill((4,), value))
    np.testing.assert_allclose(nameplate.predict(model, X), (X - 2) / np.sqrt(1 + 1e-3), rtol=1e-5, atol=1e-6)
    assert [copy.numpy()[0] for copy in copies] == [1.0, 3.0]


MISTAKES: dict[str, tuple[Any, str]] = {
    "no end": (
        lambda model: nameplate.predict(model, tf.data.Dataset.from_tensor_slices(X).batch(4).repeat()),
        "has no end",
    ),
    "no examples": (lambda model: nameplate.predict(model, X[:0]), "at least 1"),
    "lengths": (lambda model: nameplate.predict(model, {"a": X, "b": X[:3]}), r"\[9, 3\] examples"),
    "no batch": (lambda model: nameplate.evaluate(model, (X, Y), batch_size=0), "batch_size=0: at least 1"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cannot_be_applied_says_why(model: keras.Model, mistake: str) -> None:
    act, says = MISTAKES[mistake]
    with pytest.raises(NameplateError, match=says):
        act(model)


def test_an_evaluation_needs_a_compiled_model(strategy: Any) -> None:
    with strategy.scope(), pytest.raises(NameplateError, match=r"call model.compile\(...\) first"):
        nameplate.evaluate(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]), (X, Y))
