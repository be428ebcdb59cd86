"""The models of random trainings, with layers of every habit that a number of replicas could disturb."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

from tests.faults.differential.cases import Case

WIDTH, STEPS, WORDS, OUT = 6, 5, 9, 3

LAST = {"positive": "softplus", "binary": "sigmoid", "classes": "softmax", "onehot": "softmax", "real": None}
WITHOUT_LAST = {"bce_logits": None, "scce_logits": None, "hinge": "tanh", "squared_hinge": "tanh"}


class AddsLoss(layers.Layer):
    """A layer that adds a mean over its examples to the loss."""

    def call(self, inputs: Any) -> Any:
        """Return its inputs."""
        self.add_loss(0.1 * ops.mean(ops.square(inputs)))
        return inputs


class Subclassed(keras.Model):
    """A model whose graph is its code."""

    def __init__(self, last: str | None, **options: Any) -> None:
        super().__init__(**options)
        self.first = layers.Dense(5, activation="tanh", name="first")
        self.norm = layers.LayerNormalization(name="norm")
        self.blocks = [layers.Dense(5, activation="tanh", name=f"block{place}") for place in range(2)]
        self.head = layers.Dense(OUT, activation=last, name="head")

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return the outputs, (n, OUT)."""
        x = self.norm(self.first(inputs))
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


class OwnStep(keras.Model):
    """A `train_step` as Keras' guide writes it."""

    def train_step(self, data: Any) -> Any:
        """Train on a batch."""
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            predicted = self(x, training=True)
            loss = self.compute_loss(x=x, y=y, y_pred=predicted, sample_weight=weight)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return self.compute_metrics(x, y, predicted, sample_weight=weight)


class OwnLoss(keras.Model):
    """A `compute_loss` that adds a mean over the examples to Keras' own."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True) -> Any:  # type: ignore[no-untyped-def]
        """Return the loss of a batch, a scalar."""
        loss = super().compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)
        return loss + 0.1 * ops.mean(ops.square(y_pred))


def structure_of(case: Case) -> keras.Model:
    """Return the model of a case, not compiled, made in the current scope."""
    last = WITHOUT_LAST.get(case.loss, LAST[case.kind])
    model = _BUILDERS.get(case.structure, _plain)(case, last)
    if case.frozen:
        next(layer for layer in model.layers if layer.name == "first").trainable = False
    return model


def _head(last: str | None, name: str = "head") -> layers.Layer:
    return layers.Dense(OUT, activation=last, name=name)


def _middle(case: Case, x: Any) -> Any:
    """Return what a structure does between its first layer and its head."""
    if case.structure == "normalized":
        return layers.ReLU(name="act")(layers.BatchNormalization(momentum=0.8, name="norm")(x))
    if case.structure == "layer_norm":
        return layers.GroupNormalization(2, name="groups")(layers.LayerNormalization(name="norm")(x))
    if case.structure == "regularized":
        return layers.Dense(4, kernel_regularizer="l2", activity_regularizer="l1", name="second")(x)
    return AddsLoss(name="adds")(x) if case.structure == "adds_loss" else x


def _plain(case: Case, last: str | None) -> keras.Model:
    x = keras.Input((WIDTH,), name="x")
    first = layers.Dense(6, use_bias=case.structure != "normalized", name="first")(x)
    kind = {"own_step": OwnStep, "own_loss": OwnLoss}.get(case.structure, keras.Model)
    return kind(x, _head(last)(ops.tanh(_middle(case, first))), name="drawn")


def _conv(case: Case, last: str | None) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((6, 6, 2), name="x"),
            layers.Conv2D(4, 3, padding="same", use_bias=False, name="first"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="act"),
            layers.MaxPooling2D(name="pool"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.GlobalAveragePooling2D(name="mean"),
            _head(last),
        ],
        name="drawn",
    )


def _words(case: Case, last: str | None) -> keras.Model:
    """Return a model of sequences padded with zeros: one answer each, or one a position."""
    every = case.structure == "tokens"
    x = keras.Input((STEPS,), dtype="int32", name="x")
    embedded = layers.Embedding(WORDS, 4, mask_zero=True, name="first")(x)
    read = layers.GRU(4, return_sequences=every, name="read")(embedded)
    return keras.Model(x, _head(last)(read), name="drawn")


def _two_inputs(case: Case, last: str | None) -> keras.Model:
    left, right = keras.Input((WIDTH,), name="left"), keras.Input((STEPS,), dtype="int32", name="right")
    bag = layers.GlobalAveragePooling1D(name="bag")(layers.Embedding(WORDS, 4, mask_zero=True, name="words")(right))
    both = layers.Concatenate(name="both")([layers.Dense(4, activation="tanh", name="first")(left), bag])
    return keras.Model({"left": left, "right": right}, _head(last)(both), name="drawn")


def _two_outputs(case: Case, last: str | None) -> keras.Model:
    x = keras.Input((WIDTH,), name="x")
    shared = layers.Dense(4, activation="tanh", name="first")(x)
    return keras.Model(x, {"one": _head(last, "one")(shared), "other": _head(last, "other")(shared)}, name="drawn")


def _shared(case: Case, last: str | None) -> keras.Model:
    x = keras.Input((WIDTH,), name="x")
    first, again = layers.Dense(WIDTH, activation="tanh", name="first"), layers.Dense(WIDTH, name="again")
    return keras.Model(x, _head(last)(again(first(again(first(x))))), name="drawn")


def _nested(case: Case, last: str | None) -> keras.Model:
    inside = keras.Input((4,), name="inside")
    norm = layers.BatchNormalization(name="norm")(layers.Dense(4, use_bias=False, name="first")(inside))
    inner = keras.Model(inside, ops.tanh(norm), name="inner")
    x = keras.Input((WIDTH,), name="x")
    # Not linear: a bias that the statistics cancel has a gradient of rounding alone, which Adafactor scales up.
    first = layers.Dense(4, activation="tanh", name="first")(x)
    return keras.Model(x, _head(last)(inner(first)), name="drawn")


def _subclassed(case: Case, last: str | None) -> keras.Model:
    return Subclassed(last, name="drawn")


_BUILDERS = {
    "conv": _conv,
    "sequence": _words,
    "tokens": _words,
    "two_inputs": _two_inputs,
    "two_outputs": _two_outputs,
    "shared": _shared,
    "nested": _nested,
    "subclassed": _subclassed,
}
