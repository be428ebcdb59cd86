"""What Keras and TensorFlow write, of a model with Adam and as many bytes as the store is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

Arrays = Mapping[str, np.ndarray]
Contender = tuple[Callable[[Path, Arrays], object], Callable[[Path, Arrays], object]]


def contenders(arrays: Arrays) -> dict[str, Contender]:
    """Return the contenders for one model that holds these bytes: kernels, biases, and two slots each."""
    layers = sum(name.endswith("/kernel") for name in arrays)
    model = keras.Sequential([keras.layers.Dense(2048, name=f"layer_{layer}") for layer in range(layers)])
    model.build((None, 2048))
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    return {
        ".weights.h5": (
            lambda path, _: model.save_weights(_called(path, ".weights.h5")),
            lambda path, _: model.load_weights(_called(path, ".weights.h5")),
        ),
        ".keras": (
            lambda path, _: model.save(_called(path, ".keras")),
            lambda path, _: keras.saving.load_model(_called(path, ".keras")),
        ),
        "tf.train.Checkpoint": (
            lambda path, _: checkpoint.write(_called(path, "")),
            lambda path, _: checkpoint.read(_called(path, "")).expect_partial(),
        ),
    }


def _called(directory: Path, suffix: str) -> str:
    directory.mkdir(exist_ok=True)
    return str(directory / f"model{suffix}")
