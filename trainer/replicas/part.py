"""What a replica is doing while its step is traced: which part of the step it has, and what it asks of the others."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from trainer.replicas.packing import in_one_piece


class CrossesReplicasError(Exception):
    """A computation that was to be compiled for one replica asks the others for something."""


@dataclass(frozen=True)
class Part:
    """How the losses of a replica enter the step's."""

    weight: float | tf.Tensor  # of a mean over the replica's examples; those of all replicas add up to 1
    copies: int = 1  # replicas that hold the same examples, each of which has one `copies`-th of a sum
    counts: bool = True  # false where another replica stands for the same examples
    compiled: bool = False  # for one replica alone: nothing may be asked of the others
    later: bool = False  # losses stay means over the replica's examples, and are weighted afterwards

    @property
    def scale(self) -> float | tf.Tensor:
        """Return what a loss that is a mean over the replica's examples is multiplied by."""
        return 1.0 if self.later else self.weight

    @property
    def scale_of_sum(self) -> float | tf.Tensor:
        """Return what a loss that is a sum over the replica's examples is multiplied by."""
        return self.scale / self.weight / self.copies


class _Traced(threading.local):
    """The part that this thread traces: MirroredStrategy has a thread for each replica, and one runs at a time."""

    part: Part | None = None
    counting: tuple[Any, Sequence[Any]] | None = None
    keeping: Sequence[Any] = ()


_traced = _Traced()


def current() -> Part | None:
    """Return the part that is being traced, None outside of a step."""
    return _traced.part


@contextmanager
def tracing(part: Part | None) -> Iterator[None]:
    """Trace a replica's part of a step: losses inside are its part of the step's, and add up over the replicas."""
    before, _traced.part = _traced.part, part
    try:
        yield
    finally:
        _traced.part = before


@contextmanager
def counting(examples: Any, metrics: Sequence[Any]) -> Iterator[None]:
    """Trace what updates these metrics by a mean over so many examples, a number or a tensor."""
    before, _traced.counting = _traced.counting, (examples, metrics)
    try:
        yield
    finally:
        _traced.counting = before


def examples_behind(metric: Any) -> Any | None:
    """Return how many examples a mean stands for that this metric is updated by; None where it is not known."""
    examples, metrics = _traced.counting or (None, ())
    return examples if any(metric is each for each in metrics) else None


@contextmanager
def keeping(layers: Sequence[Any]) -> Iterator[None]:
    """Let the tensors that a replica leaves on these layers be its own, while it waits for the others.

    Replicas share the layers, and their threads take turns where they exchange something: without this, what `call`
    keeps for `compute_loss` would be another replica's when that comes to it.
    """
    before, _traced.keeping = _traced.keeping, layers
    try:
        yield
    finally:
        _traced.keeping = before


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


def number_of_this_replica() -> int:
    """Return the number of the replica that is being traced; it is a constant of the graph."""
    context = tf.distribute.get_replica_context()
    return int(tf.get_static_value(tf.convert_to_tensor(context.replica_id_in_sync_group)))


def times(value: tf.Tensor, factor: float | tf.Tensor) -> tf.Tensor:
    """Return a multiple, in the value's precision."""
    return value * (tf.cast(factor, value.dtype) if isinstance(factor, tf.Tensor) else factor)


def weighted(gradient: Any, part: Part) -> Any:
    """Return a part of the step's gradient, from that of a mean over the replica's examples; None stays None."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(times(gradient.values, part.weight), gradient.indices, gradient.dense_shape)
    return None if gradient is None else times(gradient, part.weight)


def added_up(gradients: Sequence[Any]) -> list[Any]:
    """Return the sums over the replicas of gradients that are parts of the step's; None stays None. One pack."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return list(gradients)
    held = [each for each in gradients if each is not None]
    summed = iter(in_one_piece(lambda pieces: _totals(context, pieces), held))
    return [None if each is None else next(summed) for each in gradients]


def counted_once(gradient: Any, part: Part) -> Any:
    """Leave the rows of an embedding's gradient to one of the replicas that hold the same examples.

    Keras' optimizers square each row by itself, also where several are of one entry: halves would not do.
    """
    if part.copies == 1 or not isinstance(gradient, tf.IndexedSlices):
        return gradient
    kept = slice(None) if part.counts else slice(0)
    return tf.IndexedSlices(part.copies * gradient.values[kept], gradient.indices[kept], gradient.dense_shape)


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

    kept = [(vars(layer), _tensors(layer)) for layer in _traced.keeping]
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
