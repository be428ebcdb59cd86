"""Small models and data of a user's own, which a test writes into a module and trusts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

MODULE = '''
import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="my_nets")
class Spoils(keras.layers.Layer):
    """Passes its input on, nearly; its gradient is infinite where an example's first number is negative."""

    def call(self, x):
        zero = x[:, -1:] - keras.ops.stop_gradient(x[:, -1:])
        return x + 1e-30 * keras.ops.sqrt(keras.ops.where(x[:, :1] < 0, zero, 1.0))


def build(input_shape, classes, names=("body", "label"), width=8, spoils=False, dropout=0.2):
    image = keras.Input(input_shape, name="image")
    flat = keras.layers.Flatten(name="flat")(image)
    x = keras.layers.Dense(width, name=names[0])(flat)
    x = keras.layers.Dropout(dropout, name="drop")(x)
    if spoils:
        x = Spoils(name="spoiler")(keras.layers.Concatenate(name="both")([flat, x]))
    return keras.Model(image, keras.layers.Dense(classes, name=names[1])(x), name="mine")


@keras.saving.register_keras_serializable(package="my_nets")
class Counts(keras.layers.Layer):
    """Counts how often each of 40 ids, the first number of an example, was trained on, and when it was last."""

    def build(self, shape):
        given = {"initializer": "zeros", "trainable": False}
        self.seen = self.add_weight(shape=(40,), name="seen", **given)
        self.last = self.add_weight(shape=(40,), name="last", **given)
        self.step = self.add_weight(shape=(), name="step", **given)

    def call(self, x, training=False):
        if training:
            here = keras.ops.sum(keras.ops.one_hot(keras.ops.cast(x[:, 0], "int32"), 40), 0)
            self.step.assign(self.step + 1)
            self.seen.assign(self.seen + here)
            self.last.assign(keras.ops.where(here > 0, self.step, self.last))
        return x


HOOK = lambda where: None


@keras.saving.register_keras_serializable(package="my_nets")
class Tells(keras.layers.Layer):
    """Passes its input on, and calls HOOK when it is traced, when a step runs, and when an evaluation does."""

    def call(self, x, training=False):
        if isinstance(x, keras.KerasTensor):
            return x
        if training:
            HOOK("tracing")
        where = "step" if training else "evaluation"
        (same,) = tf.py_function(lambda: [HOOK(where), 1.0][1:], [], [x.dtype])
        return x * tf.ensure_shape(same, ())


def build_telling(input_shape, classes):
    x = keras.Input(input_shape, name="x")
    return keras.Model(x, keras.layers.Dense(classes, name="y")(Tells(name="teller")(x)), name="mine")


@keras.saving.register_keras_serializable(package="my_nets")
class Large(keras.layers.Layer):
    """Needs more memory in training than there is: 64 TiB."""

    def call(self, x, training=False):
        return x + keras.ops.max(tf.fill([1 << 44], x[0, 0])) if training else x


def build_large(input_shape, classes):
    x = keras.Input(input_shape, name="x")
    return keras.Model(x, keras.layers.Dense(classes, name="y")(Large(name="larger")(x)), name="mine")


def build_random(input_shape, classes):
    """A little of everything that has a state: batch statistics, dropout, and a kernel that Adam moves."""
    image = keras.Input(input_shape, name="image")
    x = keras.layers.Conv2D(4, 3, name="stem")(Tells(name="teller")(image))
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Dropout(0.3, name="drop")(keras.layers.Flatten(name="flat")(x))
    return keras.Model(image, keras.layers.Dense(classes, name="label")(x), name="mine")


def build_counting(input_shape, classes):
    x = keras.Input(input_shape, name="x")
    return keras.Model(x, keras.layers.Dense(classes, name="y")(Counts(name="counter")(x)), name="mine")
'''
CUSTOM = ["model=custom", "model._target_=my_nets.build", "trust=[my_nets]"]


def write_nets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `my_nets` importable."""
    (folder / "my_nets.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(folder))


def write_data(path: Path, spoilt: dict[int, float], *, size: int = 40) -> list[str]:
    """Write examples of 6 numbers from 0 to 1 in 3 classes, some with another first number; return the overrides."""
    source = np.random.default_rng(1)
    x = source.random((size, 6)).astype(np.float32)
    for index, value in spoilt.items():
        x[index, 0] = value
    np.savez(path, x=x, y=source.integers(0, 3, size))
    return ["data=arrays", f"data.path={path}", "data.validation=0"]
