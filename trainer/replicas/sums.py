"""What a replica asks of the others while its step is traced: sums, for which its thread waits for theirs."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from trainer.replicas.packing import in_one_piece
from trainer.replicas.part import current


class CrossesReplicasError(Exception):
    """A computation that was to be compiled for one replica asks the others for something."""


class _Own(threading.local):
    """What is this thread's alone, and so its replica's: each has a thread, and one of them runs at a time."""

    layers: Sequence[Any] = ()


_own = _Own()


def sum_over_replicas(value: tf.Tensor) -> tf.Tensor:
    """Return the sum of the replicas' values; its gradient flows back to all of them.

    Raises:
        CrossesReplicasError: where the trace is for one replica alone.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    part = current()
    if part is not None and part.compiled:
        raise CrossesReplicasError
    (total,) = _totals(context, [tf.stop_gradient(value)])
    return _passing_back(value, total)


def added_up(gradients: Sequence[Any]) -> list[Any]:
    """Return the sums over the replicas of gradients that are parts of the step's; None stays None. One pack."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return list(gradients)
    held = [each for each in gradients if each is not None]
    summed = iter(in_one_piece(lambda pieces: _totals(context, pieces), held))
    return [None if each is None else next(summed) for each in gradients]


@contextmanager
def keeping(layers: Sequence[Any]) -> Iterator[None]:
    """Let the tensors that a replica leaves on these layers be its own, while it waits for the others.

    Replicas share the layers, and their threads take turns where they exchange something: without this, what `call`
    keeps for `compute_loss` would be another replica's when that comes to it.
    """
    before, _own.layers = _own.layers, layers
    try:
        yield
    finally:
        _own.layers = before


def number_of_this_replica() -> int:
    """Return the number of the replica that is being traced; it is a constant of the graph."""
    context = tf.distribute.get_replica_context()
    return int(tf.get_static_value(tf.convert_to_tensor(context.replica_id_in_sync_group)))


def _totals(context: tf.distribute.ReplicaContext, values: Sequence[Any]) -> Sequence[Any]:
    """Return the sums over the replicas, in one pack a dtype, as constants to any gradient.

    `ReplicaContext.all_reduce` makes them differentiable, for which it looks through the graph behind them for
    variables, at each call and through all of the replicas: tracing took time as the square of the depth so.
    """
    of_dtype: dict[tf.DType, list[int]] = {}  # places: TensorFlow's collectives put a pack's tensors into one
    for place, each in enumerate(values):
        of_dtype.setdefault(each.dtype, []).append(place)

    def reduce(strategy: tf.distribute.Strategy, *values: Any) -> Any:
        found: dict[int, Any] = {}
        for places in of_dtype.values():
            here = [(values[place], values[place]) for place in places]
            found |= zip(places, strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, here), strict=True)
        return [found[place] for place in range(len(values))]

    kept = [(vars(layer), _tensors(layer)) for layer in _own.layers]
    totals = context.merge_call(reduce, args=tuple(values))
    for attributes, own in kept:
        attributes.update(own)
    return totals


def _tensors(layer: Any) -> dict[str, Any]:
    """Return the attributes that are tensors, or lists or dictionaries of tensors."""
    return {name: value for name, value in vars(layer).items() if _has_tensors(value)}


def _has_tensors(value: Any) -> bool:
    if isinstance(value, dict | list | tuple):
        return any(map(_has_tensors, value.values() if isinstance(value, dict) else value))
    return isinstance(value, tf.Tensor)


@tf.custom_gradient
def _passing_back(value: tf.Tensor, total: tf.Tensor) -> Any:
    """Return the total; its gradient with respect to this replica's value is the sum of all replicas' gradients."""
    del value
    return tf.identity(total), lambda upstream: (sum_over_replicas(upstream), None)
