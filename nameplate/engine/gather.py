"""What the replicas have computed, in one piece on the host: tensors of any dtype, in the order of the replicas."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from nameplate.engine import exchange
from nameplate.errors import NameplateError

# What collectives carry between workers; the rest travels as one of these that holds each of its values.
_CARRIED = (tf.float16, tf.float32, tf.float64, tf.int32, tf.int64)
_SMALL = (tf.bool, tf.int8, tf.uint8, tf.int16, tf.uint16)
_WIDER = {tf.bfloat16: tf.float32, tf.uint32: tf.int64, **dict.fromkeys(_SMALL, tf.int32)}


def gathered(value: Any) -> tf.Tensor:
    """Return the rows of all replicas, (all of them, ...), from a replica's tensor (rows, ...); between replicas.

    Raises:
        NameplateError: the tensor has no rows, or is of a kind that does not travel between workers.
    """
    strategy = tf.distribute.get_strategy()
    own = strategy.experimental_local_results(value)
    if not own[0].shape.rank:
        raise NameplateError(
            f"the model gives a single number, of shape {own[0].shape}, for a batch; predictions have a row an example"
        )
    if exchange.several():
        return _between_workers(strategy, value, own[0].dtype)
    with tf.device("CPU:0"):  # where it is read, and where every dtype can be put together
        return tf.concat(own, 0) if len(own) > 1 else own[0]


def _between_workers(strategy: tf.distribute.Strategy, value: Any, dtype: tf.DType) -> tf.Tensor:
    carried = dtype if dtype in _CARRIED else _WIDER.get(dtype)
    if carried is None:
        known = ", ".join(sorted(each.name for each in (*_CARRIED, *_WIDER)))
        raise NameplateError(
            f"predictions of {dtype.name} cannot be gathered from several workers, which exchange {known}; "
            "give one of these, or predict in one process"
        )
    own = strategy.experimental_local_results(value)
    first = exchange.first()
    wide = strategy.experimental_distribute_values_from_function(
        lambda context: tf.cast(own[context.replica_id_in_sync_group - first], carried)
    )
    return tf.cast(strategy.gather(wide, axis=0), dtype)


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
