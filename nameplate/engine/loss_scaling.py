"""Which part of a step a replica has while it is traced, and so how what it computes enters the whole."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from nameplate.data.batches import Share


@dataclass(frozen=True)
class Part:
    """How the losses of a replica enter the step's."""

    weight: float | tf.Tensor  # of a mean over the replica's examples; those of all replicas add up to 1
    copies: int = 1  # replicas that hold the same examples, each of which has one `copies`-th of a sum
    counts: bool = True  # false where another replica stands for the same examples
    compiled: bool = False  # for one replica alone: nothing may be asked of the others
    later: bool = False  # losses stay means over the replica's examples, and are weighted afterwards
    alone: bool = False  # what is computed is whole by itself: the other replicas have no part in it
    share: Share | None = None  # which examples of the step they are

    @property
    def scale(self) -> float | tf.Tensor:
        """Return what a loss that is a mean over the replica's examples is multiplied by."""
        return 1.0 if self.later else self.weight

    @property
    def scale_of_sum(self) -> float | tf.Tensor:
        """Return what a loss that is a sum over the replica's examples is multiplied by."""
        return self.scale / self.weight / self.copies


class _Traced(threading.local):
    """What this thread traces: MirroredStrategy has a thread for each replica, and one runs at a time."""

    part: Part | None = None
    counting: tuple[Any, Sequence[Any]] | None = None


_traced = _Traced()


def current() -> Part | None:
    """Return the part that is being traced, None outside of a step."""
    return _traced.part


@contextmanager
def alone() -> Iterator[None]:
    """Compute something as one device would that has nothing else: whole, and weighted by nothing."""
    with tracing(Part(1.0, alone=True)):
        yield


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


def times(value: tf.Tensor, factor: float | tf.Tensor) -> tf.Tensor:
    """Return a multiple, in the value's precision."""
    return value * (tf.cast(factor, value.dtype) if isinstance(factor, tf.Tensor) else factor)


def weighted(gradient: Any, weight: float | tf.Tensor) -> Any:
    """Return a multiple of a gradient; None stays None."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(times(gradient.values, weight), gradient.indices, gradient.dense_shape)
    return None if gradient is None else times(gradient, weight)


def counted_once(gradient: Any, part: Part) -> Any:
    """Leave the rows of an embedding's gradient to one of the replicas that hold the same examples.

    Keras' optimizers square each row by itself, also where several are of one entry: halves would not do.
    """
    if part.copies == 1 or not isinstance(gradient, tf.IndexedSlices):
        return gradient
    kept = slice(None) if part.counts else slice(0)
    return tf.IndexedSlices(part.copies * gradient.values[kept], gradient.indices[kept], gradient.dense_shape)
