"""Two inputs through one shared tower, compared and added, with any number of outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from trainer.models import checks, ports


def build(
    inputs: Mapping[str, tuple[int, ...]],
    outputs: Mapping[str, int],
    *,
    width: int = 32,
    features: int = 64,
    hidden: int = 64,
) -> keras.Model:
    """Return a model from a dictionary of two inputs to a dictionary of logits, one entry an output.

    Both inputs go through the same tower, a model of its own named `tower`, to `features` numbers each: three
    convolutions from `width` channels for an image (height, width, channels), two dense layers for any other shape.
    Each output has its own layer of `hidden` units. The model is symmetric in its inputs. Raises BuildError
    for data without exactly two inputs of one shape.
    """
    problems = checks.at_least(1, width=width, features=features, hidden=hidden)
    shape = ports.twins("two_tower", inputs, outputs, problems=problems)
    views = {name: ports.source(name, shape) for name in inputs}
    shared = tower(shape, width=width, features=features)
    x = _compared([shared(view) for view in views.values()])
    heads = {label: _head(x, label=label, units=units, hidden=hidden) for label, units in outputs.items()}
    return ports.assemble("two_tower", views, heads)


def tower(shape: tuple[int, ...], *, width: int, features: int) -> keras.Model:
    """Return the tower alone, from one example's shape to (features,); `one_tower` uses it too."""
    view = ports.source("view", shape)
    x = view
    if len(shape) == 3:
        for number, (filters, stride) in enumerate([(width, 1), (2 * width, 2), (2 * width, 2)], start=1):
            x = _conv_bn_relu(x, number=number, filters=filters, stride=stride)
    x = keras.layers.Flatten(name="flat")(x)
    if len(shape) != 3:
        x = keras.layers.Dense(2 * features, activation="relu", name="dense1")(x)
    x = keras.layers.Dense(features, activation="relu", name="features")(x)
    return keras.Model(view, x, name="tower")


def _conv_bn_relu(x: Any, *, number: int, filters: int, stride: int) -> Any:
    x = keras.layers.Conv2D(
        filters,
        3,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"conv{number}",
    )(x)
    # 0.9, because in a short training the moving average of Keras' default, 0.99, does not converge.
    x = keras.layers.BatchNormalization(momentum=0.9, name=f"bn{number}")(x)
    return keras.layers.ReLU(name=f"relu{number}")(x)


def _compared(pair: list[Any]) -> Any:
    """Return the sum and the squared difference of two vectors, which do not change when the two are swapped."""
    total = keras.layers.Add(name="pair_sum")(pair)
    difference = keras.layers.Subtract(name="pair_difference")(pair)
    square = keras.layers.Multiply(name="pair_square")([difference, difference])
    return keras.layers.Concatenate(name="pair")([total, square])


def _head(x: Any, *, label: str, units: int, hidden: int) -> Any:
    x = keras.layers.Dense(hidden, activation="relu", name=f"{label}_hidden")(x)
    return ports.logits(x, label=label, units=units)
