"""What the workers of a strategy say to each other in numbers: small exchanges between steps, the same on all.

With one process there is nobody to ask, and every function gives back what it got.
"""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from nameplate.engine.signals import StopRequest


def several() -> bool:
    """Say whether the current strategy spans several processes."""
    strategy = tf.distribute.get_strategy()
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and strategy.num_replicas_in_sync > held()


def held() -> int:
    """Return how many replicas this process holds."""
    strategy = tf.distribute.get_strategy()
    return len(getattr(strategy.extended, "worker_devices", ("one",)))


def first() -> int:
    """Return the number, among all replicas, of this process's first."""
    resolver = getattr(tf.distribute.get_strategy(), "cluster_resolver", None)
    return held() * int(resolver.task_id) if several() and resolver is not None else 0


def exchanged(values: Sequence[float]) -> np.ndarray:
    """Return every worker's values, (workers, n) float64; all workers must come here together."""
    own = np.asarray(values, np.float64)
    return _gathered(own)[:: held()] if several() else own[None]


def of_all_replicas(values: Mapping[str, Sequence[np.ndarray]]) -> dict[str, list[np.ndarray]]:
    """Return the arrays of all replicas, by name, from those of this process's replicas; bit for bit.

    All workers must come here together with the same names, shapes and dtypes.
    """
    if not several() or not values:
        return {name: list(arrays) for name, arrays in values.items()}
    packed = b"".join(np.ascontiguousarray(array).tobytes() for arrays in values.values() for array in arrays)
    words = np.frombuffer(packed + bytes(-len(packed) % 8), np.int64)
    found: dict[str, list[np.ndarray]] = {name: [] for name in values}
    for row in _gathered(words)[:: held()]:
        data, place = row.tobytes(), 0
        for name, arrays in values.items():
            for array in arrays:
                one = np.frombuffer(data, array.dtype, array.size, place).reshape(array.shape)
                found[name].append(one.copy())
                place += array.nbytes
    return found


class AgreedStop(StopRequest):
    """A request to stop that all workers hear of at the same step, whichever of them got the signal."""

    def __init__(self, own: StopRequest) -> None:
        self._own = own
        self._agreed: signal.Signals | None = None

    @property
    def received(self) -> signal.Signals | None:  # type: ignore[override]
        """Return the signal that some worker has received; every look asks all of them."""
        if self._agreed is None:
            asked = int(exchanged([float(self._own.received or 0)]).max())
            self._agreed = signal.Signals(asked) if asked else None
        return self._agreed


def number_of_this_replica() -> int:
    """Return the number of the replica that is being traced, over all workers; it is a constant of the graph."""
    context = tf.distribute.get_replica_context()
    return int(tf.get_static_value(tf.convert_to_tensor(context.replica_id_in_sync_group)))


def summed(value: tf.Tensor) -> tf.Tensor:
    """Return the sum of the workers' values, in a graph."""
    if not several():
        return value
    strategy = tf.distribute.get_strategy()
    size = held()

    def of_replica(value: tf.Tensor) -> tf.Tensor:
        # The first replica speaks for its worker. On its own device, by which the collective finds it.
        own = tf.identity(value) if number_of_this_replica() % size == 0 else tf.zeros_like(value)
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, own)

    return strategy.experimental_local_results(strategy.run(of_replica, (value,)))[0]


def _gathered(own: np.ndarray) -> np.ndarray:
    """Return the vectors (n,) of all replicas, (replicas, n); each replica of a worker gives the worker's."""
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
