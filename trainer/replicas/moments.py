"""Mean and variance over the examples of all replicas: one formula for any number of them, precise for any mean.

Each replica takes the mean and the squared distances from it of its own values, as one device does, and all combine
them (Chan, Golub and LeVeque, 1979). The usual E[x²] - E[x]² loses the variance where the mean is large: of values
around 1000 with variance 1 it keeps one digit in float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from trainer.replicas.private.tape import with_gradient
from trainer.replicas.sums import in_its_place, over_several, sum_of_gradients, sum_over_replicas


def moments(x: tf.Tensor, axes: Sequence[int], *, mask: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
    """Return mean and variance of x over `axes` and all replicas, those axes of size 1.

    `mask`, of x's shape, is 1 where a value counts and 0 elsewhere. One collective is made, and one for gradients.
    """
    if not over_several():
        total, mean, distances = _of_this_replica(x, list(axes), mask)
        return mean, tf.math.divide_no_nan(distances, total)
    total, *constants = _over_all(_of_this_replica(tf.stop_gradient(x), list(axes), mask))
    found: list[tf.Tensor] = []

    def gradient(of_mean: tf.Tensor, of_variance: tf.Tensor) -> list[tf.Tensor]:
        # By x, of the mean 1 / total, and of the variance 2 (x - mean) / total. The mean is taken from what was
        # found, not from the constant, for the sake of second derivatives.
        both = tf.math.divide_no_nan(sum_of_gradients(tf.stack([of_mean, 2.0 * of_variance])), total)
        of_mean, of_variance = tf.unstack(both)
        of_x = of_mean + of_variance * (x - found[0])
        return [of_x if mask is None else of_x * mask]

    found += with_gradient(constants, [x], gradient)
    return found[0], found[1]


def _of_this_replica(x: tf.Tensor, axes: list[int], mask: tf.Tensor | None) -> list[tf.Tensor]:
    """Return how many values there are, their mean, and the sum of their squared distances from it."""
    if mask is None:
        mean = tf.reduce_mean(x, axes, keepdims=True)
        distances = tf.reduce_sum(tf.math.squared_difference(x, mean), axes, keepdims=True)
        count = tf.cast(tf.size(x, tf.int64) // tf.size(mean, tf.int64), x.dtype)
        return [tf.fill(tf.shape(mean), count), mean, distances]
    counts = tf.reduce_sum(mask, axes, keepdims=True)
    mean = tf.math.divide_no_nan(tf.reduce_sum(x * mask, axes, keepdims=True), counts)
    distances = tf.reduce_sum(mask * tf.math.squared_difference(x, mean), axes, keepdims=True)
    return [counts, mean, distances]


def _over_all(own: list[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the number of values of all replicas, their mean and their variance."""
    counts, means, distances = tf.unstack(sum_over_replicas(in_its_place(tf.stack(own))), axis=1)
    total = tf.reduce_sum(counts, 0)
    mean = tf.math.divide_no_nan(tf.reduce_sum(counts * means, 0), total)
    between = counts * tf.math.squared_difference(means, mean)
    return total, mean, tf.math.divide_no_nan(tf.reduce_sum(distances + between, 0), total)
