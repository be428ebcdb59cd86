"""Which steps of an epoch one graph makes, and their shares in it: numbers where all are alike, tensors where not.

Where an epoch ends with a smaller step, the graph asks at each step whether it is that one, so that one trace makes
all of them. Two kinds of epoch have a trace of its own for the smaller step instead: where it has fewer examples than
there are replicas, since then the replicas divide it otherwise, and where XLA compiles, which needs to know shapes.
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from trainer.data.batches import Batches, Share


@dataclass(frozen=True)
class Stretch:
    """Steps of an epoch, one after another, that one graph makes."""

    first: int
    count: int
    last: bool | None = None  # whether they are smaller last ones; None: the graph tells each


def stretches(batches: Batches, first: int, count: int, *, apart: bool = False) -> list[Stretch]:
    """Divide `count` steps of an epoch, from step `first` on, by the graph that makes them; `apart` by their shape."""
    if not batches.last:
        return [Stretch(first, count, last=False)]
    if batches.last >= batches.replicas and not apart:
        return [Stretch(first, count)]
    full = max(min(count, batches.full - first), 0)
    both = [Stretch(first, full, last=False), Stretch(first + full, count - full, last=True)]
    return [each for each in both if each.count]


def shares_at(batches: Batches, step: tf.Tensor, *, last: bool | None) -> list[Share]:
    """Return how the replicas divide a step of an epoch, given as an int64 scalar; see `Stretch.last`."""
    if last is not None:
        return batches.shares(batches.last if last else batches.batch)
    is_last = step >= batches.full
    both = zip(batches.shares(batches.batch), batches.shares(batches.last), strict=True)
    return [
        Share(
            _either(is_last, full.start, small.start, tf.int64),
            _either(is_last, full.length, small.length, tf.int64),
            _either(is_last, full.part, small.part, tf.float64),
        )
        for full, small in both
    ]


def _either(is_last: tf.Tensor, full: float, last: float, dtype: tf.DType) -> float | tf.Tensor:
    """Return the number of a full step or of the last; a number as it is, where both have the same."""
    return full if full == last else tf.where(is_last, tf.constant(last, dtype), tf.constant(full, dtype))
