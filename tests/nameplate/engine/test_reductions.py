"""Numbers that a model's own code makes of a share: found to be means or sums by a trial, or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import nameplate
from nameplate.errors import NameplateError
from tests.long import cases
from tests.nameplate.engine.replication.oracle import same_as_keras
from tests.nameplate.engine.test_whole_batch import data


class Adds(layers.Layer):
    """Adds a loss of any kind."""

    def __init__(self, made: Callable[[Any], Any], **options: Any) -> None:
        super().__init__(**options)
        self.made = made
        self.drop = layers.Dropout(0.0, seed=1, name="drop")

    def call(self, x: Any) -> Any:
        x = self.drop(x)
        self.add_loss(0.1 * self.made(x))
        return x


def with_layer(layer: Callable[[], keras.Layer], *, norm: bool = False) -> Callable[[], keras.Model]:
    def build() -> keras.Model:
        stack = [keras.Input((6,)), layers.Dense(5, activation="tanh", name="hidden")]
        stack += [layers.BatchNormalization(name="norm")] if norm else []
        made = keras.Sequential([*stack, layer(), layers.Dense(2, name="value")], name="adding")
        made.compile(keras.optimizers.SGD(0.02, momentum=0.9), loss="mse", metrics=["mae"])
        return made

    return build


SQUARES: dict[str, Callable[[Any], Any]] = {
    "sum": lambda x: ops.sum(ops.square(x)),
    "mean": lambda x: ops.mean(ops.square(x)),
    "vector": lambda x: ops.mean(ops.square(x), axis=0),
}


@pytest.mark.parametrize("size", cases([17, 21], short=[21]))
@pytest.mark.parametrize("kind", SQUARES)
def test_a5_a_loss_that_a_layer_adds_counts_as_what_it_is(strategy: Any, kind: str, size: int) -> None:
    build = with_layer(lambda: Adds(SQUARES[kind], name="adds"), norm=kind != "vector")
    same_as_keras(strategy, build, data(size, weighted=True))


@pytest.mark.parametrize("regularizer", cases(["l1", "l2"], short=["l2"]))
def test_a5_activity_regularizers_count_as_they_do_on_one_device(strategy: Any, regularizer: str) -> None:
    build = with_layer(
        lambda: layers.Dense(4, kernel_regularizer="l2", activity_regularizer=regularizer, name="regular")
    )
    same_as_keras(strategy, build, data())


def test_a5_a_loss_of_a_layer_that_is_neither_is_refused_in_words(strategy: Any) -> None:
    with strategy.scope():
        model = with_layer(lambda: Adds(lambda x: ops.sqrt(ops.mean(ops.square(x))), name="adds"))()
    with pytest.raises(NameplateError, match=r"the layer 'adds' adds a loss that is neither a mean nor a sum"):
        nameplate.fit(model, data())
    alone = with_layer(lambda: Adds(lambda x: ops.sqrt(ops.mean(ops.square(x))), name="adds"))()
    nameplate.fit(alone, data())  # on one replica everything is Keras' own number


class Sampling(layers.Layer):
    """The sampling of a variational autoencoder, with its divergence added as a sum."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seeds = keras.random.SeedGenerator(3)

    def call(self, x: Any) -> Any:
        mean, log_variance = ops.split(x, 2, axis=-1)
        noise = keras.random.normal(ops.shape(mean), seed=self.seeds)
        self.add_loss(-0.05 * ops.sum(1 + log_variance - ops.square(mean) - ops.exp(log_variance)))
        return mean + 0.0 * noise * ops.exp(0.5 * log_variance)


def test_a5_the_divergence_of_a_variational_autoencoder_is_that_of_the_batch(strategy: Any) -> None:
    def build() -> keras.Model:
        stack = [keras.Input((6,)), layers.Dense(6, name="both"), Sampling(name="sampling")]
        made = keras.Sequential([*stack, layers.Dense(2, name="value")], name="vae")
        made.compile(keras.optimizers.SGD(0.02), loss="mse")
        return made

    same_as_keras(strategy, build, data())


class Own(keras.Model):
    """A model with methods of its own."""

    def __init__(self) -> None:
        super().__init__(name="own")
        self.value = layers.Dense(2, name="value")
        self.tracker = keras.metrics.Mean(name="tracked")

    def call(self, x: Any) -> Any:
        return self.value(x)


class SumLoss(Own):
    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        weights = 1.0 if sample_weight is None else sample_weight[:, None]
        return 0.1 * ops.sum(weights * ops.square(y - y_pred))


class Tracked(Own):
    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        loss = ops.mean(ops.square(y - y_pred))
        self.tracker.update_state(loss)
        return loss + super().compute_loss(x, y, y_pred, sample_weight, training=training)


class Rooted(Own):
    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        return ops.sqrt(ops.mean(ops.square(y - y_pred)))


class SumStep(Own):
    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            predicted = self(x, training=True)
            loss = 0.1 * tf.reduce_sum(tf.square(predicted - y))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        self.tracker.update_state(tf.reduce_mean(tf.abs(predicted - y)))
        return {"total": loss, "tracked": self.tracker.result(), "squares": tf.reduce_mean(tf.square(predicted), 0)}


class OwnTestStep(Own):
    def test_step(self, data: Any) -> Any:
        x, y = data
        predicted = self(x, training=False)
        error = tf.abs(predicted - y)
        self.tracker.update_state(tf.reduce_mean(error))
        return {"loss": tf.reduce_mean(error), "total": tf.reduce_sum(error), "running": self.tracker.result()}


class MoreMetrics(Own):
    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        self.tracker.update_state(ops.mean(ops.abs(y_pred)))
        found = super().compute_metrics(x, y, y_pred, sample_weight)
        return {**found, "size": ops.mean(ops.square(y_pred)), "again": self.tracker.result()}


class Norm(Own):
    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x, training=True) - y))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss, "norm": tf.linalg.global_norm(gradients)}


def own(kind: type[Own], *metrics: str) -> Callable[[], keras.Model]:
    def build() -> keras.Model:
        made = kind()
        made.compile(keras.optimizers.SGD(0.02, momentum=0.9), loss="mse", metrics=list(metrics) or None)
        return made

    return build


def test_a5_a_compute_loss_that_returns_a_sum_is_that_of_the_batch(strategy: Any) -> None:
    same_as_keras(strategy, own(SumLoss), data(weighted=True))


@pytest.mark.parametrize("size", cases([17, 21], short=[21]))
def test_a5_a_train_step_whose_loss_is_a_sum_trains_by_that_of_the_batch(strategy: Any, size: int) -> None:
    same_as_keras(strategy, own(SumStep), data(size), validation=False)


def test_a5_what_is_neither_is_refused_in_words_all_at_once(strategy: Any) -> None:
    with strategy.scope():
        rooted, norm = own(Rooted)(), own(Norm)()
    with pytest.raises(NameplateError, match="compute_loss returns what is neither a mean nor a sum"):
        nameplate.fit(rooted, data())
    with pytest.raises(NameplateError, match="the step returns 'norm', which is neither"):
        nameplate.fit(norm, data())


@pytest.mark.parametrize("size", cases([17, 21], short=[17]))
def test_a13_a_test_step_that_returns_its_own_numbers_is_reported(strategy: Any, size: int) -> None:
    same_as_keras(strategy, own(OwnTestStep), data(size))


@pytest.mark.parametrize("size", cases([17, 21], short=[17]))
def test_a13_extra_keys_of_compute_metrics_are_reported(strategy: Any, size: int) -> None:
    same_as_keras(strategy, own(MoreMetrics, "mae"), data(size))


def test_a13_a_test_step_of_its_own_is_reported_on_one_replica() -> None:
    x, y = data()
    model = own(OwnTestStep)()
    model(x)
    expected = model.evaluate(x, y, batch_size=8, verbose=0, return_dict=True)
    assert nameplate.evaluate(model, (x, y), batch_size=8) == pytest.approx(expected)


class Seen(layers.Layer):
    """Measures what goes through it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.rows, self.number = keras.metrics.Sum(name="rows"), keras.metrics.Mean(name="number")

    def call(self, x: Any) -> Any:
        self.rows.update_state(ops.ones(ops.shape(x)[:1]))
        self.number.update_state(ops.mean(x))
        return x


@pytest.mark.parametrize("size", cases([17, 21], short=[17]))
def test_a15_a_metric_in_a_layer_counts_every_example_once(strategy: Any, size: int) -> None:
    same_as_keras(strategy, with_layer(lambda: Seen(name="seen")), data(size))


@pytest.mark.parametrize("size", cases([17, 21], short=[21]))
def test_a18_a_mean_in_a_compute_loss_is_weighted_by_shares(strategy: Any, size: int) -> None:
    same_as_keras(strategy, own(Tracked, "mae"), data(size))


class Added(Own):
    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        self.summed.update_state(ops.mean(ops.abs(y_pred)))
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def __init__(self) -> None:
        super().__init__()
        self.summed = keras.metrics.Sum(name="summed")


def test_a18_a_sum_of_means_is_refused_in_words(strategy: Any) -> None:
    with strategy.scope():
        model = own(Added)()
    with pytest.raises(NameplateError, match=r"the metric of 'summed/total' is updated with a number"):
        nameplate.fit(model, data())


def test_a18_a_metric_of_several_numbers_is_an_array_in_the_logs(strategy: Any) -> None:
    x, y = data()
    labels = np.eye(3, dtype="float32")[np.argmax(y @ np.ones((2, 3)) + x[:, :3], axis=-1)]

    def build() -> keras.Model:
        made = keras.Sequential(
            [keras.Input((6,)), layers.Dense(3, activation="softmax", name="label")], name="classes"
        )
        made.compile("sgd", "categorical_crossentropy", metrics=[keras.metrics.F1Score(average=None)])
        return made

    model = same_as_keras(strategy, build, (x, labels))
    assert np.shape(model.history.history["val_f1_score"]) == (2, 3)
