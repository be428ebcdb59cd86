"""Collectives between the processes of a strategy, called from Python between steps, by all workers together.

With one process there is nobody to ask, and every function returns what it was given.
"""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from nameplate.engine.signals import StopRequest


def several_workers() -> bool:
    """Say whether the current strategy spans several processes."""
    strategy = tf.distribute.get_strategy()
    several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    return several and strategy.num_replicas_in_sync > local_replicas()


def replica_count() -> int:
    """Return how many replicas the current strategy has, over all workers; 1 without one."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def is_chief() -> bool:
    """Say whether this process is the one of the current strategy that writes."""
    resolver = tf.distribute.get_strategy().cluster_resolver
    return resolver is None or int(resolver.task_id or 0) == 0


def local_replicas() -> int:
    """Return how many replicas this process holds."""
    strategy = tf.distribute.get_strategy()
    return len(getattr(strategy.extended, "worker_devices", ("one",)))


def first_local_replica() -> int:
    """Return the number, among all replicas, of this process's first."""
    resolver = getattr(tf.distribute.get_strategy(), "cluster_resolver", None)
    return local_replicas() * int(resolver.task_id) if several_workers() and resolver is not None else 0


def replica_number() -> int:
    """Return the number, over all workers, of the replica that is being traced: a constant of the graph."""
    context = tf.distribute.get_replica_context()
    return int(tf.get_static_value(tf.convert_to_tensor(context.replica_id_in_sync_group)))


def gather_numbers(values: Sequence[float]) -> np.ndarray:
    """Return every worker's values, (workers, n) float64."""
    own = np.asarray(values, np.float64)
    return _gathered(own)[:: local_replicas()] if several_workers() else own[None]


def gather_arrays(values: Mapping[str, Sequence[np.ndarray]]) -> dict[str, list[np.ndarray]]:
    """Return the arrays of all replicas, by name, from those of this process's replicas; bit for bit.

    All workers must call this together, with the same names, shapes and dtypes.
    """
    if not several_workers() or not values:
        return {name: list(arrays) for name, arrays in values.items()}
    # As int64, so that no float is converted on the way; all arrays in one collective.
    packed = b"".join(np.ascontiguousarray(array).tobytes() for arrays in values.values() for array in arrays)
    words = np.frombuffer(packed + bytes(-len(packed) % 8), np.int64)
    gathered: dict[str, list[np.ndarray]] = {name: [] for name in values}
    for row in _gathered(words)[:: local_replicas()]:
        data, offset = row.tobytes(), 0
        for name, arrays in values.items():
            for array in arrays:
                one = np.frombuffer(data, array.dtype, array.size, offset).reshape(array.shape)
                gathered[name].append(one.copy())
                offset += array.nbytes
    return gathered


def sum_over_workers(value: tf.Tensor) -> tf.Tensor:
    """Return the sum of the workers' values, in a graph."""
    if not several_workers():
        return value
    strategy = tf.distribute.get_strategy()
    size = local_replicas()

    def of_replica(value: tf.Tensor) -> tf.Tensor:
        # The worker's first replica contributes its value, the others zeros. `identity` puts it on the replica's own
        # device, by which the collective finds it.
        own = tf.identity(value) if replica_number() % size == 0 else tf.zeros_like(value)
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, own)

    return strategy.experimental_local_results(strategy.run(of_replica, (value,)))[0]


def agreed_stop(own: StopRequest) -> StopRequest:
    """Return this process's request to stop, or with several workers one that is the same on all."""
    return _AgreedStop(own) if several_workers() else own


class _AgreedStop(StopRequest):
    """A request to stop that all workers see at the same step, whichever of them received the signal."""

    def __init__(self, own: StopRequest) -> None:
        self._own = own
        self._agreed: signal.Signals | None = None

    @property
    def received(self) -> signal.Signals | None:  # type: ignore[override]
        """Return the signal that any worker has received; reading it asks all of them."""
        if self._agreed is None:
            asked = int(gather_numbers([float(self._own.received or 0)]).max())
            self._agreed = signal.Signals(asked) if asked else None
        return self._agreed


def _gathered(own: np.ndarray) -> np.ndarray:
    """Return the vectors (n,) of all replicas, (replicas, n); each replica contributes its worker's."""
    gather = _gather(tf.distribute.get_strategy(), tf.as_dtype(own.dtype))
    return gather(tf.constant(own)).numpy().reshape(-1, own.size)


@functools.lru_cache(maxsize=4)
def _gather(strategy: tf.distribute.Strategy, dtype: tf.DType) -> Callable[[tf.Tensor], tf.Tensor]:
    def of_replica(own: tf.Tensor) -> tf.Tensor:
        # On the replica's own device, by which the collective finds it.
        return tf.distribute.get_replica_context().all_gather(tf.identity(own), axis=0)

    @tf.function(input_signature=[tf.TensorSpec([None], dtype)])
    def gather(own: tf.Tensor) -> tf.Tensor:
        return strategy.experimental_local_results(strategy.run(of_replica, (own,)))[0]

    return gather
