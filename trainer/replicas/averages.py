"""Moving averages of the weights, in the weights' place while somebody looks at the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import tensorflow as tf

from trainer.replicas.private.compiled import copies
from trainer.replicas.private.optimizers import moving_averages


@contextmanager
def averages_in_place(optimizer: keras.Optimizer) -> Iterator[None]:
    """Inside, weights that the optimizer keeps moving averages of have the averages' values, and these the weights'.

    Training goes on afterwards with the bits that it had. Call it outside of a graph, on all workers alike.
    """
    pairs = moving_averages(optimizer)
    _exchange(pairs)
    try:
        yield
    finally:
        _exchange(pairs)


def _exchange(pairs: list[tuple[keras.Variable, keras.Variable]]) -> None:
    """Exchange the values of variables on each replica; no more than one is held twice at a time."""
    for variable, average in pairs:
        for one, other in zip(copies(variable), copies(average), strict=True):
            held = tf.identity(one)
            one.assign(other)
            other.assign(held)
