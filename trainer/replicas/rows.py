"""Rows of embeddings' gradients (`tf.IndexedSlices`) from all replicas, of any number in any step.

TensorFlow gathers them with collectives, and within one call of a graph a collective keeps the shape that it had first:
a step with other rows (a smaller last batch, longer sequences) aborts it, and every later collective of the process. So
within a process each replica takes the others' rows from their devices, and between processes they travel padded to one
of a few sizes, each with a collective of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from trainer.workers import exchange

SIZES = tuple(4**power for power in range(2, 14))  # rows of a replica that travel in one piece, up to 67 million


def of_all_replicas(strategy: tf.distribute.Strategy, own: Any) -> Any:
    """Return the rows of every replica, from each replica's own; called between replicas, in a merge call.

    Either a list of all rows by replica, wherever they are, for `joined`; or what `joined` leaves as it is.
    """
    local = strategy.experimental_local_results(own)
    if not exchange.several():
        return list(local)
    if all(each.values.shape.is_fully_defined() for each in local):
        return strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, [(own, own)])[0]
    return _between_workers(strategy, local)


def joined(rows: Any) -> Any:
    """Return all rows in one, in the order of the replicas; on the device of the replica that asks."""
    if not isinstance(rows, list):
        return rows
    values, indices = (tf.concat([getattr(each, part) for each in rows], 0) for part in ("values", "indices"))
    return tf.IndexedSlices(values, indices, rows[0].dense_shape)


def _between_workers(strategy: tf.distribute.Strategy, own: Sequence[tf.IndexedSlices]) -> list[tf.IndexedSlices]:
    """Return the rows of every replica: as many collectives as TensorFlow makes, and two for equal lengths."""
    count = strategy.num_replicas_in_sync
    lengths = _summed(strategy, [_in_place([tf.size(each.indices)], count, number) for number, each in _numbered(own)])
    enough = tf.reduce_sum(tf.cast(tf.reduce_max(lengths) > tf.constant(SIZES[:-1]), tf.int32))
    travel = [functools.partial(_travelled, strategy, own, size) for size in SIZES]
    values, indices = tf.switch_case(enough, travel)
    shape = own[0].dense_shape
    return [
        tf.IndexedSlices(values[number, : lengths[number, 0]], indices[number, : lengths[number, 0]], shape)
        for number in range(count)
    ]


def _travelled(
    strategy: tf.distribute.Strategy, own: Sequence[tf.IndexedSlices], size: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return values (replicas, size, ...) and indices (replicas, size) of all replicas, zero behind their rows."""
    count = strategy.num_replicas_in_sync
    parts: list[tf.Tensor] = []
    for part in ("values", "indices"):
        padded = [(number, _padded(getattr(each, part), size)) for number, each in _numbered(own)]
        parts.append(_summed(strategy, [_in_place(each, count, number) for number, each in padded]))
    return parts[0], parts[1]


def _numbered(own: Sequence[tf.IndexedSlices]) -> list[tuple[int, tf.IndexedSlices]]:
    """Return the rows of this worker's replicas, each with its replica's number among all."""
    return list(enumerate(own, exchange.first()))


def _padded(rows: tf.Tensor, size: int) -> tf.Tensor:
    missing = [[0, size - tf.shape(rows)[0]], *[[0, 0]] * (rows.shape.rank - 1)]
    return tf.ensure_shape(tf.pad(rows, missing), [size, *rows.shape[1:]])


def _in_place(value: Any, count: int, number: int) -> tf.Tensor:
    """Return a value at its replica's place among zeros, (count, ...)."""
    value = tf.convert_to_tensor(value)
    return tf.pad(value[None], [[number, count - 1 - number], *[[0, 0]] * value.shape.rank])


def _summed(strategy: tf.distribute.Strategy, own: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return the sum over all replicas of the values of this worker's."""
    first = exchange.first()
    value = strategy.experimental_distribute_values_from_function(
        lambda context: own[context.replica_id_in_sync_group - first]
    )
    total = strategy.extended.reduce_to(tf.distribute.ReduceOp.SUM, value, destinations=value)
    return strategy.experimental_local_results(total)[0]
