"""`python -m tests.nameplate.engine.replication.embeddings`: embeddings over TensorFlow's own collectives, by size.

Each is compared with a training of the same batches on one device, one after another; the largest difference of any
weight is printed by size, as JSON. A process can hold one number of CPU replicas, so each has a process of its own.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import nameplate
from nameplate.engine.config import StrategyConfig, StrategyKind
from nameplate.engine.strategy import make_strategy
from tests.nameplate.engine.replication.cases import BATCH

WORDS = 7


def main() -> int:
    """Train on arrays and on padded batches of each size, and print how far the weights are from one device's."""
    replicas, sizes = int(sys.argv[1]), json.loads(sys.argv[2])
    make_strategy(StrategyConfig(kind=StrategyKind.cpu_replicas, replicas=replicas))  # for its logical devices
    strategy = tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(replicas)])
    apart = {}
    for size in sizes:
        for kind, data in (("arrays", _arrays(size)), ("padded", _padded(size))):
            with strategy.scope():
                mirrored = _model()
            nameplate.fit(mirrored, data, batch_size=BATCH, epochs=2, shuffle=False, verbose=0)
            apart[f"{kind} {size}"] = _difference(mirrored, _one_device(data))
    print(json.dumps(apart))
    return 0


def _model() -> keras.Model:
    keras.utils.set_random_seed(3)
    words = keras.Input((None,), dtype="int64", name="words")
    x = layers.Embedding(WORDS, 4, name="embedding", dtype="float64")(words)
    x = layers.GlobalAveragePooling1D(name="mean", dtype="float64")(x)
    model = keras.Model(words, layers.Dense(2, name="value", dtype="float64")(x), name="sentences")
    model.compile(keras.optimizers.Adam(0.05), "mse")
    return model


def _one_device(data: Any) -> keras.Model:
    model = _model()
    for _ in range(2):
        for x, y in data if isinstance(data, tf.data.Dataset) else _cut(*data):
            model.train_on_batch(x, y)
    return model


def _cut(x: np.ndarray, y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(x[start : start + BATCH], y[start : start + BATCH]) for start in range(0, len(x), BATCH)]


def _arrays(size: int) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.random.default_rng(size)
    return numbers.integers(0, WORDS, (size, 5)), numbers.normal(size=(size, 2))


def _padded(size: int) -> tf.data.Dataset:
    def examples() -> Any:
        numbers = np.random.default_rng(size)
        for _ in range(size):
            yield numbers.integers(0, WORDS, numbers.integers(1, 9)), numbers.normal(size=2)

    form = tf.TensorSpec((None,), tf.int64), tf.TensorSpec((2,), tf.float64)
    return tf.data.Dataset.from_generator(examples, output_signature=form).padded_batch(BATCH)


def _difference(one: keras.Model, other: keras.Model) -> float:
    pairs = zip(one.get_weights(), other.get_weights(), strict=True)
    return max(float(np.abs(left - right).max()) for left, right in pairs)


if __name__ == "__main__":
    sys.exit(main())
