"""What a model's own methods say of a step, kept on the devices until somebody reads it."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from trainer.workers import exchange

Value = float | np.ndarray  # an array as a metric of several numbers gives it


class OwnLogs:
    """The logs of the last step; none where the model tells nothing of its own. Make it outside of a graph."""

    def __init__(self) -> None:
        self._ranks: dict[str, int] = {}
        # One vector, since how many there are is known only when the step is traced, too late to make variables.
        self._values = tf.Variable(tf.zeros([0]), shape=[None], trainable=False)
        self._shapes = tf.Variable(tf.zeros([0], tf.int32), shape=[None], trainable=False)

    def keep(self, logs: dict[str, Any]) -> None:
        """Remember, in a graph, what the replicas say: parts of each value, which add up over all of them."""
        if not logs:
            return
        local = tf.distribute.get_strategy().experimental_local_results
        values = {name: tf.add_n(local(value)) for name, value in logs.items()}
        self._ranks = {name: len(value.shape) for name, value in values.items()}
        self._values.assign(tf.concat([tf.reshape(value, [-1]) for value in values.values()], 0))
        self._shapes.assign(tf.concat([tf.shape(value) for value in values.values()], 0))

    def read(self) -> dict[str, Value]:
        """Return the values by name; all workers ask together."""
        if not self._ranks:
            return {}
        values, shapes = exchange.exchanged(self._values.numpy()).sum(0), list(self._shapes.numpy())
        found: dict[str, Value] = {}
        for name, rank in self._ranks.items():
            shape, shapes = shapes[:rank], shapes[rank:]
            size = int(np.prod(shape)) if rank else 1
            found[name] = values[:size].reshape(shape).astype(np.float32) if rank else float(values[0])
            values = values[size:]
        return found
