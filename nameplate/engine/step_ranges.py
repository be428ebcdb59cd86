"""Which steps of an epoch one graph makes, and their shares in it: numbers where all are alike, tensors where not.

Where an epoch ends with a smaller step, the graph asks at each step whether it is that one, so that one trace makes
all of them. Two kinds of epoch have a trace of its own for the smaller step instead: where it has fewer examples than
there are replicas, since then the replicas divide it otherwise, and where XLA compiles, which needs to know shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from nameplate.data.batches import Batches, Share
from nameplate.engine.exchange import exchanged


@dataclass(frozen=True)
class Stretch:
    """Steps of an epoch, one after another, that one graph makes."""

    first: int
    count: int
    last: bool | None = None  # whether they are smaller last ones; None: the graph tells each


def stretches(batches: Batches, first: int, count: int, *, apart: bool = False) -> list[Stretch]:
    """Divide `count` steps of an epoch, from step `first` on, by the graph that makes them; `apart` by their shape."""
    if not batches.last or not batches.full:
        return [Stretch(first, count, last=bool(batches.last))]
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
    full, small = batches.shares(batches.batch), batches.shares(batches.last)
    starts, lengths, parts, steps = (
        _either(is_last, [getattr(share, what) for share in full], [getattr(share, what) for share in small], dtype)
        for what, dtype in (("start", tf.int64), ("length", tf.int64), ("part", tf.float64), ("step", tf.int64))
    )
    return [
        Share(start, length, part, step=step)
        for start, length, part, step in zip(starts, lengths, parts, steps, strict=True)
    ]


def _either(is_last: tf.Tensor, full: list[Any], last: list[Any], dtype: tf.DType) -> list[Any]:
    """Return the numbers of a full step or of the last, one a replica; as they are, where both have the same.

    All are numbers or none is: what a replica computes has the static shapes then that it has on every other.
    """
    if full == last:
        return full
    return tf.unstack(tf.where(is_last, tf.constant(last, dtype), tf.constant(full, dtype)))


SECONDS = 0.5  # so long a signal waits, and a progress bar stands still
FIRST = 2  # steps of the first call, which also traces
GROWTH = 8  # a call makes at most so many times the steps of the one before


class Pace:
    """Chooses the steps of each call from how long the last one took."""

    def __init__(self, at_most: int | None, *, by_batch: bool, per_hook: int = 1) -> None:
        self.by_batch = by_batch  # Python runs every `per_hook` steps, because a callback asks for it
        self._most = per_hook if by_batch else at_most
        self._count = self._most or FIRST
        self._calls = 0

    def steps(self, left: int) -> int:
        """Return the steps of the next call, when `left` remain until the next event; the same on all workers."""
        count = self._count if self._most else int(exchanged([self._count]).min())
        return max(1, min(left, count))

    def took(self, count: int, seconds: float) -> None:
        """Learn how long a call of `count` steps took; the first is not counted, it traces."""
        self._calls += 1
        if self._most is None and self._calls > 1:
            fitting = int(SECONDS * count / max(seconds, 1e-6))
            self._count = max(1, min(fitting, self._count * GROWTH))
