"""One model of each kind that Keras knows, every layer with a name: what the naming tests run over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers


@keras.saving.register_keras_serializable("naming_models")
class Scale(layers.Layer):
    """A custom layer with a variable of its own, a sub-layer and a seed."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.inner = layers.Dense(units, name="inner")
        self.noise = keras.random.SeedGenerator(7)

    def build(self, shape: tuple[int | None, ...]) -> None:
        self.factor = self.add_weight(shape=(self.units,), initializer="ones")
        self.inner.build(shape)

    def call(self, x: Any) -> Any:
        return self.inner(x) * self.factor

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("naming_models")
class Net(keras.Model):
    """A subclassed model with layers in a list, in a dictionary and in a model of their own."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stem = layers.Dense(6, name="stem")
        self.blocks = [layers.Dense(6, activation="relu", name=f"block{index}") for index in range(2)]
        self.heads = {"left": layers.Dense(3, name="left"), "right": layers.Dense(3, name="right")}
        self.drop = layers.Dropout(0.5, name="drop", seed=1)
        self.body = keras.Sequential([layers.Dense(6, name="first"), layers.Dense(6, name="second")], name="body")

    def call(self, x: Any, training: bool = False) -> Any:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        x = self.body(self.drop(x, training=training))
        return self.heads["left"](x) + self.heads["right"](x)


def functional() -> keras.Model:
    x = image = keras.Input((6,), name="image")
    x = layers.Dense(5, activation="relu", name="hidden")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Dropout(0.3, name="drop")(x)
    return keras.Model(image, layers.Dense(3, name="logits")(x), name="flat")


def sequential() -> keras.Model:
    stack = [keras.Input((6,), name="image"), layers.Dense(5, name="hidden"), layers.Dense(3, name="logits")]
    return keras.Sequential(stack, name="stack")


def unbuilt() -> keras.Model:
    return keras.Sequential([layers.Dense(5, name="hidden"), layers.Dense(3, name="logits")], name="later")


def backbone(name: str = "backbone") -> keras.Model:
    x = keras.Input((6,), name="pixels")
    return keras.Model(x, layers.Dense(4, name="c2")(layers.Dense(4, name="c1")(x)), name=name)


def nested() -> keras.Model:
    """Two different backbones with the same inner names, one inside yet another model."""
    image = keras.Input((6,), name="image")
    deep_in = keras.Input((6,), name="deep_in")
    deep = keras.Model(deep_in, backbone("core")(deep_in), name="deep")
    both = layers.Concatenate(name="both")([backbone()(image), deep(image)])
    return keras.Model(image, layers.Dense(3, name="logits")(both), name="outer")


def shared() -> keras.Model:
    """One tower and one layer, each called twice; two inputs, two outputs."""
    left, right = keras.Input((6,), name="left"), keras.Input((6,), name="right")
    tower, project = backbone("tower"), layers.Dense(3, name="project")
    outputs = [project(tower(left)), layers.Subtract(name="gap")([project(tower(right)), project(tower(left))])]
    return keras.Model([left, right], outputs, name="siamese")


def wrapped() -> keras.Model:
    x = steps = keras.Input((4, 6), name="steps")
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True, dropout=0.2), name="both_ways")(x)
    x = layers.TimeDistributed(layers.Dense(4), name="each")(x)
    x = layers.RNN(
        layers.StackedRNNCells([layers.GRUCell(3, name="low"), layers.GRUCell(3, name="high")], name="cells"),
        return_sequences=True,
        name="deep",
    )(x)
    x = layers.MultiHeadAttention(2, 2, dropout=0.1, name="attention")(x, x)
    return keras.Model(steps, layers.GlobalAveragePooling1D(name="pool")(x), name="recurrent")


def operators() -> keras.Model:
    x = image = keras.Input((6,), name="image")
    y = layers.Dense(6, name="hidden")(x)
    z = (x + y)[:, :4] + keras.ops.relu(y)[:, 2:]
    return keras.Model(image, layers.Dense(3, name="logits")(z), name="arithmetic")


def custom() -> keras.Model:
    x = image = keras.Input((6,), name="image")
    x = Scale(4, name="gain")(x)
    x = layers.Lambda(lambda t: t * 2.0, name="double")(x)
    return keras.Model(image, layers.Dense(3, name="logits")(x), name="custom")


def keyed() -> keras.Model:
    """Inputs and outputs in dictionaries."""
    wide, deep = keras.Input((6,), name="wide"), keras.Input((6,), name="deep")
    x = layers.Add(name="join")([layers.Dense(4, name="w")(wide), layers.Dense(4, name="d")(deep)])
    outputs = {"score": layers.Dense(1, name="score")(x), "label": layers.Dense(3, name="classes")(x)}
    return keras.Model({"wide": wide, "deep": deep}, outputs, name="tabular")


def preprocessing() -> keras.Model:
    words = keras.Input((1,), name="words", dtype="string")
    lookup = layers.StringLookup(name="lookup")
    lookup.adapt(np.array(["a", "b", "c", "a"]))
    x = layers.Embedding(8, 4, name="vectors")(lookup(words))
    return keras.Model(words, layers.Flatten(name="flat")(x), name="text")


def subclassed() -> keras.Model:
    model = Net(name="mixer")
    model(np.zeros((2, 6), "float32"))
    return model


def mixed() -> keras.Model:
    """A subclassed model inside a graph, after augmentation."""
    image = keras.Input((6,), name="image")
    x = layers.GaussianNoise(0.1, seed=3, name="noise")(image)
    return keras.Model(image, layers.Dense(2, name="logits")(Net(name="mixer")(x)), name="mixed")


KINDS: dict[str, Callable[[], keras.Model]] = {
    make.__name__: make
    for make in (functional, sequential, unbuilt, nested, shared, wrapped, operators, custom, keyed, preprocessing)
}
KINDS |= {make.__name__: make for make in (subclassed, mixed)}
if keras.backend.backend() != "tensorflow":  # no other backend computes with texts
    del KINDS["preprocessing"]


def example(model: keras.Model) -> Any:
    """Return two examples for a model's inputs; None for one that is not built."""
    if isinstance(model, Net):
        return np.random.default_rng(0).normal(size=(2, 6)).astype("float32")
    if not model.built:
        return None
    drawn = [_values(tensor, seed) for seed, tensor in enumerate(model.inputs)]
    return keras.tree.pack_sequence_as(model.input, drawn) if not isinstance(model, keras.Sequential) else drawn[0]


def _values(tensor: Any, seed: int) -> Any:
    if tensor.dtype == "string":
        import tensorflow as tf

        return tf.constant([["a"], ["z"]])
    return np.random.default_rng(seed).normal(size=(2, *tensor.shape[1:])).astype("float32")
