"""Ranges of steps: which steps one call to the graph makes, how many, and the replicas' shares in them.

If an epoch ends with a smaller step, the graph finds out at each step whether it is that one, so that one trace makes
all of them. In two cases the smaller step has a trace of its own: if it has fewer examples than there are replicas,
which divide it otherwise then, and if XLA compiles, which needs static shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from nameplate.data.batches import Batches, Share
from nameplate.engine.host_collectives import gather_numbers


@dataclass(frozen=True)
class StepRange:
    """Consecutive steps of an epoch that one trace makes."""

    first: int
    count: int
    last: bool | None = None  # whether they are the smaller last step; None: the graph finds out at each


def step_ranges(batches: Batches, first: int, count: int, *, by_shape: bool = False) -> list[StepRange]:
    """Divide `count` steps of an epoch, from step `first` on, by the trace that makes them; `by_shape` for XLA."""
    if not batches.last or not batches.full:
        return [StepRange(first, count, last=bool(batches.last))]
    if batches.last >= batches.replicas and not by_shape:
        return [StepRange(first, count)]
    full = max(min(count, batches.full - first), 0)
    ranges = [StepRange(first, full, last=False), StepRange(first + full, count - full, last=True)]
    return [steps for steps in ranges if steps.count]


def shares_at(batches: Batches, step: tf.Tensor, *, last: bool | None) -> list[Share]:
    """Return the replicas' shares of a step of an epoch: numbers if all steps are alike, or tensors.

    `step` is an int64 scalar, `last` as in `StepRange`.
    """
    if last is not None:
        return batches.shares(batches.last if last else batches.batch)
    is_last = step >= batches.full
    full, small = batches.shares(batches.batch), batches.shares(batches.last)
    starts, lengths, parts, steps = (
        _either(is_last, [getattr(share, name) for share in full], [getattr(share, name) for share in small], dtype)
        for name, dtype in (("start", tf.int64), ("length", tf.int64), ("part", tf.float64), ("step", tf.int64))
    )
    return [
        Share(start, length, part, step=step)
        for start, length, part, step in zip(starts, lengths, parts, steps, strict=True)
    ]


def _either(is_last: tf.Tensor, full: list[Any], last: list[Any], dtype: tf.DType) -> list[Any]:
    """Return the numbers of a full step or of the last, one a replica; as they are if both have the same.

    Either all are numbers or none is, so that what one replica computes has the same static shapes on every other.
    """
    if full == last:
        return full
    return tf.unstack(tf.where(is_last, tf.constant(last, dtype), tf.constant(full, dtype)))


SECONDS = 0.5  # that a call should take: so long a signal waits, and a progress bar stands still
FIRST = 2  # steps of the first call, which also traces
GROWTH = 8  # a call makes at most this many times the steps of the one before


class StepsPerCall:
    """Chooses the number of steps of each call from the time that the last one took."""

    def __init__(self, at_most: int | None, *, by_batch: bool, per_hook: int = 1) -> None:
        self.by_batch = by_batch  # Python runs every `per_hook` steps, because a callback asks for it
        self._most = per_hook if by_batch else at_most
        self._count = self._most or FIRST
        self._calls = 0

    def steps(self, left: int) -> int:
        """Return the steps of the next call, when `left` remain until the next event; the same on all workers."""
        count = self._count if self._most else int(gather_numbers([self._count]).min())
        return max(1, min(left, count))

    def took(self, count: int, seconds: float) -> None:
        """Adapt to how long a call of `count` steps took; the first is ignored, since it traces."""
        self._calls += 1
        if self._most is None and self._calls > 1:
            fitting = int(SECONDS * count / max(seconds, 1e-6))
            self._count = max(1, min(fitting, self._count * GROWTH))
