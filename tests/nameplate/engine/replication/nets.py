"""Small compiled models, each with something that goes wrong when replicas are not one device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import layers


def classifying(model: keras.Model, optimizer: keras.Optimizer) -> keras.Model:
    """Return a model of logits, compiled; the second of two outputs has a weight of its own."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if len(getattr(model, "outputs", None) or [None]) == 1:
        model.compile(optimizer, loss=loss, metrics=["accuracy"])
    else:
        model.compile(optimizer, loss=[loss, loss], loss_weights=[1.0, 0.2], metrics=[["accuracy"], []])
    return model


def classifier() -> keras.Model:
    """Return a classifier of vectors."""
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3, name="label")], name="classifier")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(adam(), loss=loss, metrics=["accuracy"], weighted_metrics=["accuracy"])
    return model


def normalized() -> keras.Model:
    """Return a model with batch statistics."""
    inputs = keras.Input((6,), name="features")
    x = layers.Dense(5, use_bias=False, name="hidden")(layers.BatchNormalization(name="bn_features")(inputs))
    x = layers.Activation("tanh", name="tanh")(layers.BatchNormalization(name="bn_hidden")(x))
    model = keras.Model(inputs, layers.Dense(2, name="value")(x), name="normalized")
    model.compile(sgd(), loss="mse", metrics=["mae"])
    return model


def dense(optimizer: Callable[[], keras.Optimizer], loss: Any = "mse", **options: Any) -> Callable[[], keras.Model]:
    """Return the builder of a small regression with one output."""

    def build() -> keras.Model:
        inputs = keras.Input((6,), name="features")
        hidden = layers.Dense(5, activation="tanh", name="hidden", **options)(inputs)
        model = keras.Model(inputs, layers.Dense(2, name="value")(hidden), name="dense")
        model.compile(optimizer(), loss=loss, metrics=["mae"], weighted_metrics=["mse"])
        return model

    return build


def two_outputs(reduction: str = "sum_over_batch_size", *, norm: bool = False) -> Callable[[], keras.Model]:
    """Return the builder of a model with two weighted losses, and penalties on weights, outputs and of its own."""

    class Penalty(layers.Layer):
        def call(self, x: Any) -> Any:
            self.add_loss(keras.ops.mean(keras.ops.square(x)))
            return x

    def build() -> keras.Model:
        inputs = keras.Input((6,), name="features")
        hidden = layers.Dense(5, kernel_regularizer="l2", activity_regularizer="l1", name="hidden")(inputs)
        hidden = layers.BatchNormalization(name="bn")(hidden) if norm else hidden
        hidden = Penalty(name="penalty")(hidden)
        outputs = {name: layers.Dense(2, name=name)(hidden) for name in ("near", "far")}
        model = keras.Model(inputs, outputs, name="two_outputs")
        losses = keras.losses.MeanSquaredError(reduction=reduction), keras.losses.Huber(reduction=reduction)
        model.compile(
            keras.optimizers.AdamW(0.01, global_clipnorm=0.5),
            loss={"near": losses[0], "far": losses[1]},
            loss_weights={"near": 1.0, "far": 0.3},
            metrics={"near": ["mae"]},
        )
        return model

    return build


def sequences(reduction: str = "sum_over_batch_size") -> Callable[[], keras.Model]:
    """Return the builder of a model over masked sequences: embedding, batch statistics, a value a position."""

    def build() -> keras.Model:
        inputs = keras.Input((5,), dtype="int32", name="words")
        x = layers.Embedding(6, 4, mask_zero=True, name="embedding")(inputs)
        x = layers.BatchNormalization(name="bn")(x)
        model = keras.Model(inputs, layers.Dense(1, name="value")(x), name="sequences")
        loss = keras.losses.MeanSquaredError(reduction=reduction)
        model.compile(keras.optimizers.Adam(0.01), loss=loss, metrics=["mae"])
        return model

    return build


class TwoOptimizers(keras.Model):
    """A model over sequences of any length that trains its embedding by an optimizer of its own."""

    def __init__(self) -> None:
        super().__init__(name="two_optimizers")
        self.embedding = layers.Embedding(6, 4, name="embedding")
        self.value = layers.Dense(1, name="value")

    def build(self, shape: Any) -> None:
        self.embedding.build(shape)
        self.value.build((*shape, 4))
        self.of_embedding = keras.optimizers.Adam(0.01)
        self.of_embedding.build(self.embedding.trainable_variables)

    def call(self, x: Any) -> Any:
        return self.value(self.embedding(x))

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        first, *rest = tape.gradient(loss, self.trainable_variables)
        self.of_embedding.apply([first], self.embedding.trainable_variables)
        self.optimizer.apply(rest, self.value.trainable_variables)
        return {"loss": loss}


def two_optimizers() -> keras.Model:
    """Return a model with two optimizers, compiled."""
    model = TwoOptimizers()
    model.compile(keras.optimizers.SGD(0.05), loss="mse")
    model.build((None, 5))
    model.optimizer.build(model.value.trainable_variables)
    return model


def scalar_loss(target: Any, predicted: Any) -> Any:
    """Return a mean that the loss takes by itself."""
    return keras.ops.mean(keras.ops.abs(target - predicted))


@keras.saving.register_keras_serializable("tests")
class OwnLoss(keras.Model):
    """A model with a loss of its own, a mean over the examples that it gets."""

    def __init__(self) -> None:
        super().__init__(name="own_loss")
        self.value = layers.Dense(2, name="value")

    def call(self, x: Any) -> Any:
        return self.value(x)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        loss = keras.Model.compute_loss(self, x, y, y_pred, sample_weight, training=training)
        return loss + 0.1 * keras.ops.mean(keras.ops.square(y_pred))


class Keeps(OwnLoss):
    """And that keeps tensors for its loss in several ways, while replicas exchange batch statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = layers.BatchNormalization(name="norm")
        self.refilled: list[Any] = []

    def call(self, x: Any, training: bool = False) -> Any:
        self.features = keras.ops.square(x)
        self.named = {"cubes": x * self.features}
        self.refilled.clear()
        self.sparse = tf.sparse.from_dense(x)
        x = self.norm(x, training=training)
        self.refilled.append(x)
        return self.value(x)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        loss = super().compute_loss(x, y, y_pred, sample_weight, training=training)
        (refilled,) = self.refilled
        kept = self.features + self.named["cubes"] + refilled + tf.sparse.to_dense(self.sparse)
        return loss + keras.ops.mean(kept[:, :2] * y_pred)


class OwnStep(keras.Model):
    """A model with a training step of its own, as Keras' guide writes it."""

    def __init__(self) -> None:
        super().__init__(name="own_step")
        self.value = layers.Dense(2, name="value")

    def call(self, x: Any) -> Any:
        return self.value(x)

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            predicted = self(x, training=True)
            loss = self.own(y, predicted)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, predicted)
        return {metric.name: metric.result() for metric in self.metrics}

    def own(self, y: Any, predicted: Any) -> Any:
        return self.compute_loss(y=y, y_pred=predicted)


class Normalizes(OwnStep):
    """And with batch statistics, and a `test_step` of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = layers.BatchNormalization(name="norm")

    def call(self, x: Any, training: bool = False) -> Any:
        return self.value(self.norm(x, training=training))

    def test_step(self, data: Any) -> Any:
        x, y = data
        predicted = self(x, training=False)
        loss = self.compute_loss(y=y, y_pred=predicted)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss, sample_weight=tf.shape(x)[0])
            else:
                metric.update_state(y, predicted)
        return {metric.name: metric.result() for metric in self.metrics}


class ByHand(OwnStep):
    """And with a loss by hand, that no loss of Keras has seen."""

    def own(self, y: Any, predicted: Any) -> Any:
        return tf.reduce_mean(tf.square(y - predicted))


class Tells(OwnStep):
    """And that tells what it likes, and leaves the metrics alone."""

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.own(y, self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss, "double": 2 * loss}


class OwnBoth(OwnStep):
    """And with a `compute_loss` of its own."""

    compute_loss = OwnLoss.compute_loss


def own(kind: type[keras.Model], *metrics: str) -> Callable[[], keras.Model]:
    """Return the builder of a model that overrides its training, with gradients clipped."""

    def build() -> keras.Model:
        model = kind()
        model.compile(keras.optimizers.SGD(0.1, global_clipnorm=0.1), loss="mse", metrics=list(metrics) or None)
        return model

    return build


def decides() -> keras.Model:
    """Return a model whose second output is a bool, and is not trained."""
    inputs = keras.Input((6,), name="features")
    value = layers.Dense(2, name="value")(inputs)
    positive = keras.ops.greater(value, 0.0)
    model = keras.Model(inputs, {"value": value, "positive": positive}, name="decides")
    model.compile(adam(), loss={"value": "mse"})
    return model


def sgd() -> keras.Optimizer:
    """Return gradient descent with momentum."""
    return keras.optimizers.SGD(0.05, momentum=0.9)


def adam() -> keras.Optimizer:
    """Return Adam."""
    return keras.optimizers.Adam(0.01)


def noisy() -> keras.Model:
    """Return a model with random layers."""
    inputs = keras.Input((6,), name="features")
    x = layers.Dropout(0.3, seed=1, name="drop")(layers.GaussianNoise(0.1, seed=2, name="noise")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="value")(x), name="noisy")
    model.compile(adam(), loss="mse", metrics=["mae"])
    return model
