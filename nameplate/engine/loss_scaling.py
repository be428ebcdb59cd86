"""Loss scaling: how the numbers that one replica computes enter those of the whole step.

A step has N examples. Replica r holds n_r of them, and c replicas hold the same ones (c is 1 unless a step has fewer
examples than there are replicas). One device would minimise the mean over all examples:

    L = 1/N · Σ_i l_i = Σ_r w_r · m_r        with m_r the mean of l_i over replica r, and w_r = n_r / N / c

So what a replica has is multiplied by one factor, and the products of all replicas are added up:

    a mean over its examples    w_r
    a sum over its examples     1/c

The same factors hold for gradients, since they are linear in the loss. Losses and gradients are therefore summed over
the replicas, never averaged, and unequal shares come out right. (Keras divides by the number of replicas instead,
which is right only if all shares are equal.)

Each loss is scaled once, at one of two places:

* At once. In our own training step a loss is scaled where Keras reduces it (`private/one_device.py` replaces Keras'
  scaling with `of_mean` and `of_sum`), so the tape yields gradients that are already the replica's part.
* Deferred. A `train_step` or `compute_loss` of a user's model may log its loss, compare it or combine it with others,
  so it must see ordinary means over its batch. There losses stay as they are, and what comes out is scaled: the result
  of `compute_loss`, the logs of a step, the gradients that reach an optimizer.

Metrics want the mean itself, weighted by examples: `unscaled` gives it back.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

import tensorflow as tf

from nameplate.data.batches import Share

Factor = Any  # float, or a scalar tensor where the share is one


class Reduction(Enum):
    """What a number made of several examples is, with respect to the same number of parts of them."""

    ROWS = "a row an example"
    MEAN = "their mean, weighted by examples, or the same for any examples"
    SUM = "their sum"
    OTHER = "something else"


@dataclass(frozen=True)
class LossScale:
    """The factors of one replica in one step; see the module's docstring for the formula."""

    share: Share  # the examples that the replica holds: its `part` is w_r, its `copies` is c
    deferred: bool = False  # losses stay means over the share while traced, and are scaled when they come out
    compiled: bool = False  # traced for XLA, one replica by itself: no collective can be made
    alone: bool = False  # the numbers are whole already: the other replicas have no part in them

    def factor(self, reduction: Reduction) -> Factor:
        """Return what a number over the share is multiplied by, so that the replicas' products add up to the step's."""
        return 1 / self.share.copies if reduction is Reduction.SUM else self.share.part

    def scaled(self, value: Any, reduction: Reduction = Reduction.MEAN) -> Any:
        """Return a number over the share, or its gradient, as the replica's part of the step's; None stays None."""
        return multiplied(value, self.factor(reduction))

    def of_mean(self, loss: tf.Tensor) -> tf.Tensor:
        """Return a loss that is a mean over the share, scaled unless that is deferred."""
        return loss if self.deferred else self.scaled(loss)

    def of_sum(self, loss: tf.Tensor) -> tf.Tensor:
        """Return a loss that is a sum over the share, scaled; as a mean that is scaled later where that is deferred."""
        return self.as_mean(loss, Reduction.SUM) if self.deferred else self.scaled(loss, Reduction.SUM)

    def of_weighted_mean(self, loss: tf.Tensor, own: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        """Return a mean that Keras divided by `own`, the share's sum of weights, as one divided by the step's `total`.

        Of all replicas, m_r · own_r / total would add up. Since `loss` is scaled by w_r as any mean is, by Keras before
        this or by us later, the ratio is divided by w_r.
        """
        return loss * tf.math.divide_no_nan(own, multiplied(total, self.share.part))

    def as_mean(self, value: tf.Tensor, reduction: Reduction) -> tf.Tensor:
        """Return a number over the share that has the right value once it is scaled as a mean is."""
        if reduction is not Reduction.SUM:
            return value
        return multiplied(value, 1 / (self.share.part * self.share.copies))

    def unscaled(self, loss: tf.Tensor) -> tf.Tensor:
        """Return the mean over the share that `of_mean` was given, for metrics: they are weighted by examples."""
        return loss if self.deferred else multiplied(loss, 1 / self.share.part)

    def counted_once(self, gradient: Any) -> Any:
        """Leave the rows of an embedding's gradient to one of the replicas that hold the same examples.

        Keras' optimizers square every row by itself, even where several belong to one entry of the table. Rows halved
        on each of two replicas would be squared as halves.
        """
        if self.share.copies == 1 or not isinstance(gradient, tf.IndexedSlices):
            return gradient
        kept = slice(None) if self.share.counts else slice(0)
        values = self.share.copies * gradient.values[kept]
        return tf.IndexedSlices(values, gradient.indices[kept], gradient.dense_shape)


def multiplied(value: Any, factor: Factor) -> Any:
    """Return a multiple of a tensor or a gradient, in its own precision; None stays None."""
    if value is None:
        return None
    if isinstance(value, tf.IndexedSlices):
        return tf.IndexedSlices(multiplied(value.values, factor), value.indices, value.dense_shape)
    return value * (tf.cast(factor, value.dtype) if isinstance(factor, tf.Tensor) else factor)


class _Traced(threading.local):
    """What this thread traces: MirroredStrategy has a thread for each replica, of which one runs at a time."""

    scale: LossScale | None = None
    counting: tuple[Any, Sequence[Any]] | None = None


_traced = _Traced()


def current_scale() -> LossScale | None:
    """Return the scale under which this thread traces; None outside of a step."""
    return _traced.scale


@contextmanager
def scaling(scale: LossScale | None) -> Iterator[None]:
    """Trace what a replica computes of its share: Keras' hooks, collectives and optimizers inside go by this scale."""
    before, _traced.scale = _traced.scale, scale
    try:
        yield
    finally:
        _traced.scale = before


@contextmanager
def unreplicated() -> Iterator[None]:
    """Compute something as on one device: no collectives, and no loss is scaled."""
    with scaling(LossScale(Share(0, 0, 1.0), alone=True)):
        yield


@contextmanager
def counting(examples: Any, metrics: Sequence[Any]) -> Iterator[None]:
    """Weight updates of these metrics by so many examples, a number or a tensor: each is a mean over them."""
    before, _traced.counting = _traced.counting, (examples, metrics)
    try:
        yield
    finally:
        _traced.counting = before


def examples_behind(metric: Any) -> Any | None:
    """Return the number of examples behind the means that update this metric; None if it is not known."""
    examples, metrics = _traced.counting or (None, ())
    return examples if any(metric is other for other in metrics) else None
