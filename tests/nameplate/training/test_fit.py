"""`nameplate.fit` in a script of the user's own: their models, their data, their callbacks, and their mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import nameplate
from nameplate.errors import NameplateError

NUMBERS = np.random.default_rng(0)
X = NUMBERS.normal(size=(20, 4)).astype("float32")
Y = NUMBERS.normal(size=(20, 2)).astype("float32")


def compiled(strategy: Any, *layers: keras.Layer, loss: Any = "mse", **options: Any) -> keras.Model:
    with strategy.scope():
        model = keras.Sequential([keras.Input((4,)), *(layers or (keras.layers.Dense(2, name="head"),))], name="small")
        model.compile("sgd", loss, **options)
    return model


class Own(keras.Model):
    """Subclassed, and without a variable before it has seen data."""

    def __init__(self) -> None:
        super().__init__(name="own")
        self.head = keras.layers.Dense(2, name="head")

    def call(self, x: Any) -> Any:
        return self.head(x)


class OwnStep(Own):
    """With the train_step of Keras' own guide."""

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
        self.optimizer.apply_gradients(
            zip(tape.gradient(loss, self.trainable_weights), self.trainable_weights, strict=True)
        )
        return {"loss": loss}


@pytest.mark.parametrize(
    "make", [Own, OwnStep, lambda: keras.Sequential([keras.layers.Dense(2, name="head")], name="unbuilt")]
)
def test_a_model_without_variables_gets_them_and_trains(strategy: Any, make: Any) -> None:
    with strategy.scope():
        model = make()
        model.compile("sgd", "mse")
    nameplate.fit(model, (X, Y), batch_size=8, epochs=2)
    before = model.head.kernel.numpy() if hasattr(model, "head") else model.layers[0].kernel.numpy()
    nameplate.fit(model, (X, Y), batch_size=8)
    after = model.head.kernel.numpy() if hasattr(model, "head") else model.layers[0].kernel.numpy()
    assert not np.array_equal(before, after)


def test_batch_hooks_of_a_class_and_of_a_lambda_are_called_at_every_step(strategy: Any) -> None:
    class Counts(keras.callbacks.Callback):
        seen: list[int] = []  # noqa: RUF012

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.seen.append(batch)

    told: list[int] = []
    callbacks = [keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: told.append(batch)), Counts()]
    nameplate.fit(compiled(strategy), (X, Y), batch_size=8, epochs=2, callbacks=callbacks)
    assert told == Counts.seen == [0, 1, 2, 0, 1, 2]


def test_one_callback_needs_no_list(strategy: Any) -> None:
    assert nameplate.fit(compiled(strategy), (X, Y), batch_size=8, callbacks=keras.callbacks.TerminateOnNaN())


def test_a_dataset_without_end_trains_the_steps_that_are_asked_for(strategy: Any) -> None:
    endless = tf.data.Dataset.from_tensor_slices((X, Y)).repeat().batch(8)
    model = compiled(strategy)
    nameplate.fit(model, endless, steps=5)
    assert int(model.optimizer.iterations.numpy()) == 5
    with pytest.raises(NameplateError, match="is infinite: give the steps"):
        nameplate.fit(compiled(strategy), endless)


def test_batch_statistics_are_those_of_one_device_and_the_layers_stay_as_they_were(strategy: Any) -> None:
    model = compiled(strategy, keras.layers.BatchNormalization(name="norm"), keras.layers.Dense(2, name="head"))
    norm = model.get_layer("norm")
    nameplate.fit(model, (X[:8], Y[:8]), batch_size=8, shuffle=False)
    np.testing.assert_allclose(norm.moving_mean.numpy(), X[:8].mean(0) * 0.01, rtol=1e-4)
    assert norm.synchronized is False


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"data": (X, Y[:10])}, r"\[20, 10\] examples"),
    ({"data": (X[:0], Y[:0])}, "at least 1"),
    ({"data": (X,)}, "with a loss, but the data has no targets; give y"),
    ({"data": {"x": X}}, "with a loss, but the data has no targets; give y"),
    ({"validation_data": (X[:0], Y[:0])}, "validation_data"),
    ({"validation_data": (X[:, :3], Y)}, "validation_data has examples of"),
    ({"batch_size": 0, "epochs": -1, "steps_per_loop": 0}, "epochs=-1: at least 1\nbatch_size=0: at least 1\nsteps_"),
    ({"class_weight": {"a": 1.0}}, "{whole number: number} or None is needed, not 'a': 1.0"),
    ({"data": (X[:, :3], Y)}, "does not fit 'small'"),
]


@pytest.mark.parametrize(("arguments", "says"), MISTAKES, ids=[says[:30] for _, says in MISTAKES])
def test_a_mistake_is_answered_before_the_first_step(strategy: Any, arguments: dict[str, Any], says: str) -> None:
    model = compiled(strategy)
    data = arguments.pop("data", (X, Y))
    with pytest.raises(NameplateError, match=says):
        nameplate.fit(model, data, **{"batch_size": 8, **arguments})


def test_a_model_that_cannot_be_trained_says_why(strategy: Any, tmp_path: Path) -> None:
    with strategy.scope():
        bare = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")], name="bare")
    with pytest.raises(NameplateError, match="not compiled"):
        nameplate.fit(bare, (X, Y), batch_size=8)
    with pytest.raises(NameplateError, match="compiled without a loss"):
        nameplate.fit(compiled(strategy, loss=None), (X, Y), batch_size=8)
    frozen = compiled(strategy)
    frozen.trainable = False
    with pytest.raises(NameplateError, match="nothing to train"):
        nameplate.fit(frozen, (X, Y), batch_size=8, run=tmp_path / "run")
    with pytest.warns(UserWarning, match="nothing to train: 'small' has no variable"):
        assert nameplate.fit(frozen, (X, Y), batch_size=8).history["loss"]


def test_a_model_from_outside_the_scope_says_so(strategy: Any) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")], name="outside")
    model.compile("sgd", "mse")
    with strategy.scope(), pytest.raises(NameplateError, match="outside of the strategy's scope"):
        nameplate.fit(model, (X, Y), batch_size=8)
