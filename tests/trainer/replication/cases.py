"""Trainings whose numbers must not depend on the number of replicas: a model, its data, and how it is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import layers

from tests.models.zoo.cases import Case as Architecture

BATCH = 8
Arrays = Any  # an array, or a dict of them


@dataclass(frozen=True)
class Training:
    """One training; everything in it is the same for every number of replicas."""

    build: Callable[[], keras.Model]  # compiled, in the strategy's scope
    data: Callable[[int], tuple[Any, ...]]  # number of examples -> (x, y[, weight])
    size: int = 21  # examples: the last step of an epoch has 5
    epochs: int = 2
    class_weight: dict[int, float] = field(default_factory=dict)
    precise: bool = True  # in float64, so that nothing hides behind rounding; zoo models' logits are float32 always


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    """Return numbers from a normal distribution."""
    return np.random.default_rng(seed).normal(size=shape)


def labels(size: int, classes: int = 10) -> np.ndarray:
    """Return class numbers."""
    return np.random.default_rng(1).integers(0, classes, size)


def images(size: int, *, mean: float = 0.0) -> tuple[Any, ...]:
    """Return small images with a class each."""
    return draw(size, 8, 8, 1) + mean, labels(size)


def vectors(size: int, *, mean: float = 0.0) -> tuple[Any, ...]:
    """Return vectors with two values to predict each."""
    return draw(size, 6) + mean, draw(size, 2, seed=2)


def pairs(size: int) -> tuple[Any, ...]:
    """Return two images with a class for each of two outputs."""
    x = {"left": draw(size, 8, 8, 1), "right": draw(size, 8, 8, 1, seed=1)}
    return x, {"same": labels(size, 2), "sum": labels(size, 19)}


def zoo(name: str, optimizer: Callable[[], keras.Optimizer], *, size: int = 21, **parameters: Any) -> Training:
    """Return the training of a zoo model that classifies images, without its random layers."""

    def build() -> keras.Model:
        model = Architecture(name, parameters={**parameters, "dropout": 0.0}).build()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer(), loss=loss, metrics=["accuracy"])
        return model

    return Training(build, images, size=size, precise=False)


def towers() -> keras.Model:
    """Return the zoo's model with two inputs, a shared tower and two outputs."""
    model = Architecture("two_tower", parameters={"width": 4, "features": 8, "hidden": 4}).build()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss=[loss, loss], loss_weights=[1.0, 0.2], metrics=[["accuracy"], []])
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


def two_outputs() -> keras.Model:
    """Return a model with two weighted losses, and penalties on weights, outputs and a sum of its own."""

    class Penalty(layers.Layer):
        def call(self, x: Any) -> Any:
            self.add_loss(keras.ops.mean(keras.ops.square(x)))
            return x

    inputs = keras.Input((6,), name="features")
    hidden = layers.Dense(5, kernel_regularizer="l2", activity_regularizer="l1", name="hidden")(inputs)
    hidden = Penalty(name="penalty")(hidden)
    outputs = {name: layers.Dense(2, name=name)(hidden) for name in ("near", "far")}
    model = keras.Model(inputs, outputs, name="two_outputs")
    model.compile(
        keras.optimizers.AdamW(0.01, global_clipnorm=0.5),
        loss={"near": "mse", "far": "huber"},
        loss_weights={"near": 1.0, "far": 0.3},
        metrics={"near": ["mae"]},
    )
    return model


def two_targets(size: int, *, weighted: bool) -> tuple[Any, ...]:
    """Return vectors with two targets, weighted each in its own way or not."""
    near, far = draw(size, 2, seed=3), draw(size, 2, seed=4)
    weights = {"near": np.abs(draw(size, seed=5)), "far": np.abs(draw(size, seed=6))}
    return (draw(size, 6), {"near": near, "far": far}, *([weights] if weighted else []))


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


def words(size: int, *, weighted: bool = False) -> tuple[Any, ...]:
    """Return sequences of numbers from 0, which is masked, with a value a position."""
    numbers = np.random.default_rng(7).integers(0, 6, (size, 5))
    weights = np.abs(draw(size, 5, seed=8))
    return (numbers, draw(size, 5, 1, seed=9), *([weights] if weighted else []))


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
        loss = super().compute_loss(x, y, y_pred, sample_weight, training=training)
        return loss + 0.1 * keras.ops.mean(keras.ops.square(y_pred))


def own_loss() -> keras.Model:
    """Return a model that overrides `compute_loss`."""
    model = OwnLoss()
    model.compile(keras.optimizers.SGD(0.1), loss="mse", metrics=["mae"])
    return model


class OwnStep(OwnLoss):
    """A model with a training step of its own, as Keras' guide writes it."""

    compute_loss = keras.Model.compute_loss

    def train_step(self, data: Any) -> Any:
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


def own_step() -> keras.Model:
    """Return a model that overrides `train_step`."""
    model = OwnStep()
    model.compile(keras.optimizers.SGD(0.1), loss="mse", metrics=["mae"])
    return model


def sgd() -> keras.Optimizer:
    """Return gradient descent with momentum."""
    return keras.optimizers.SGD(0.05, momentum=0.9)


def adam() -> keras.Optimizer:
    """Return Adam."""
    return keras.optimizers.Adam(0.01)


def _averaged() -> keras.Optimizer:
    return keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2)


def _accumulating() -> keras.Optimizer:
    return keras.optimizers.Adam(0.01, gradient_accumulation_steps=2, clipnorm=0.1)


WEIGHTS = {0: 3.0, 1: 0.0}
TRAININGS = {
    "mlp": zoo("mlp", lambda: keras.optimizers.AdamW(0.01), hidden=[8, 4]),
    "convnet": zoo("convnet", sgd, width=4, blocks=[1]),
    "vit": zoo("vit", adam, size=17, width=8, layers=1, heads=2),
    "subclassed": zoo("subclassed", adam, width=8, layers=1),
    "two_tower": Training(towers, pairs, size=17, precise=False),
    "batch statistics": Training(normalized, vectors),
    "batch statistics far from zero": Training(normalized, lambda size: vectors(size, mean=1000.0), size=17),
    "batch statistics far from zero, in float32": Training(
        normalized, lambda size: vectors(size, mean=1000.0), size=17, precise=False
    ),
    "classes weighted": Training(
        classifier, lambda size: (vectors(size)[0], labels(size, 3)), 17, class_weight=WEIGHTS
    ),
    "two outputs": Training(two_outputs, lambda size: two_targets(size, weighted=True)),
    "two outputs, one example left": Training(two_outputs, lambda size: two_targets(size, weighted=False), size=17),
    "two examples left": Training(dense(adam), vectors, size=18),
    "fewer examples than replicas": Training(dense(adam), vectors, size=3, epochs=4),
    "averaged weights": Training(dense(_averaged), vectors),
    "accumulated gradients": Training(dense(_accumulating), vectors, epochs=3),
    "sum": Training(dense(adam, keras.losses.MeanSquaredError(reduction="sum")), vectors, size=17),
    "a loss that takes the mean": Training(dense(adam, scalar_loss), vectors, size=17),
    "masked": Training(sequences(), words, size=17),
    "masked and weighted": Training(
        sequences("mean_with_sample_weight"), lambda size: words(size, weighted=True), size=21
    ),
    "masked sum": Training(sequences("sum"), words, size=17),
    "own compute_loss": Training(own_loss, vectors),
    "own train_step": Training(own_step, vectors),
}
