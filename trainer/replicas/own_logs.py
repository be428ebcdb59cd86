"""What a model's own `train_step` says of a step, kept on the devices until somebody reads it."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from trainer.workers import exchange


class OwnLogs:
    """The logs of the last step; none where the model brings no `train_step`. Make it outside of a graph."""

    def __init__(self) -> None:
        self._names: list[str] = []
        # One vector, since how many there are is known only when the step is traced, too late to make variables.
        self._values = tf.Variable(tf.zeros([0]), shape=[None], trainable=False)

    def keep(self, logs: dict[str, Any]) -> None:
        """Remember, in a graph, what the replicas say: parts of each value, which add up over all of them."""
        if not logs:
            return
        self._names = list(logs)
        local = tf.distribute.get_strategy().experimental_local_results
        self._values.assign(tf.stack([tf.add_n(local(value)) for value in logs.values()]))

    def read(self) -> dict[str, float]:
        """Return the values by name; all workers ask together."""
        if not self._names:
            return {}
        return dict(zip(self._names, exchange.exchanged(self._values.numpy()).sum(0).tolist(), strict=True))
