"""What is trained: a model so small that only the host counts, one that computes, one that takes long to trace."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nameplate.engine.config import StrategyConfig, StrategyKind
from nameplate.engine.strategy import make_strategy
from trainer.models import resnet

BATCH = 32
STEPS = 512  # of an epoch
Arrays = tuple[np.ndarray, np.ndarray]


def strategy_over(replicas: int) -> tf.distribute.Strategy:
    """Return the strategy of this process: one device, or so many logical CPU devices."""
    kind = StrategyKind.single if replicas == 1 else StrategyKind.cpu_replicas
    return make_strategy(StrategyConfig(kind=kind, replicas=replicas))


def dense(width: int = 16, layers: int = 1, **options: Any) -> keras.Model:
    """Return a compiled perceptron over 16 numbers and 4 classes; call it in the scope."""
    hidden = [keras.layers.Dense(width, activation="relu", name=f"hidden{each}") for each in range(layers)]
    model = keras.Sequential([keras.Input((16,)), *hidden, keras.layers.Dense(4, name="logits")], name="dense")
    return compiled(model, **options)


def convolutional(width: int = 16, **options: Any) -> keras.Model:
    """Return a compiled ResNet-18 over 32x32 images and 10 classes."""
    return compiled(resnet.build({"image": (32, 32, 3)}, {"label": 10}, depth=18, width=width), **options)


def compiled(model: keras.Model, **options: Any) -> keras.Model:
    """Compile for classes, with Adam and accuracy, as a script would."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"], **{"jit_compile": False, **options})
    return model


def numbers(size: int = STEPS * BATCH) -> Arrays:
    """Return examples of 16 numbers in 4 classes."""
    source = np.random.default_rng(0)
    return source.normal(size=(size, 16)).astype(np.float32), source.integers(0, 4, size)


def images(size: int) -> Arrays:
    """Return 32x32 images in 10 classes."""
    source = np.random.default_rng(0)
    return source.random((size, 32, 32, 3), np.float32), source.integers(0, 10, size)


def pipeline(arrays: Arrays, *, batch: int = BATCH, endless: bool = True, whole: bool = False) -> tf.data.Dataset:
    """Return the arrays as a script feeds them: shuffled, in batches, prefetched; a smaller last one where `whole`."""
    dataset = tf.data.Dataset.from_tensor_slices(arrays).shuffle(len(arrays[0]), seed=0)
    dataset = dataset.repeat() if endless else dataset
    return dataset.batch(batch, drop_remainder=not whole).prefetch(tf.data.AUTOTUNE)
