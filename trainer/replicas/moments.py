"""Mean and variance over the examples of all replicas: one formula for any number of them, precise for any mean.

Each replica takes the mean and the squared distances from it of its own values, as one device does, and all combine
them (Chan, Golub and LeVeque, 1979). The usual E[x²] - E[x]² loses the variance where the mean is large: of values
around 1000 with variance 1 it keeps one digit in float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from trainer.replicas.part import sum_over_replicas


def moments(x: tf.Tensor, axes: Sequence[int], *, mask: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
    """Return mean and variance of x over `axes` and all replicas, those axes of size 1.

    `mask`, of x's shape, is 1 where a value counts and 0 elsewhere. One collective is made, and one for gradients.
    """
    axes = list(axes)
    if mask is None:
        count = tf.cast(tf.reduce_prod(tf.gather(tf.shape(x), axes)), x.dtype)
        mean = tf.reduce_mean(x, axes, keepdims=True)
        distances = tf.reduce_sum(tf.math.squared_difference(x, tf.stop_gradient(mean)), axes, keepdims=True)
        counts = tf.fill(tf.shape(mean), count)
    else:
        counts = tf.reduce_sum(mask, axes, keepdims=True)
        mean = tf.math.divide_no_nan(tf.reduce_sum(x * mask, axes, keepdims=True), counts)
        distances = tf.reduce_sum(mask * tf.math.squared_difference(x, tf.stop_gradient(mean)), axes, keepdims=True)
    return _combined(mean, distances, counts)


def _combined(mean: tf.Tensor, distances: tf.Tensor, counts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return mean, tf.math.divide_no_nan(distances, counts)
    means, distances, counts = tf.unstack(_of_all(tf.stack([mean, distances, counts]), context), axis=1)
    total = tf.reduce_sum(counts, 0)
    mean = tf.math.divide_no_nan(tf.reduce_sum(counts * means, 0), total)
    between = counts * tf.math.squared_difference(means, mean)
    return mean, tf.math.divide_no_nan(tf.reduce_sum(distances + between, 0), total)


def _of_all(own: tf.Tensor, context: tf.distribute.ReplicaContext) -> tf.Tensor:
    """Return every replica's values, (replicas, ...): each adds its own in its place, and zeros elsewhere."""
    replicas, number = context.num_replicas_in_sync, context.replica_id_in_sync_group
    place = tf.one_hot(number, replicas, dtype=own.dtype)
    return sum_over_replicas(tf.tensordot(place, own, axes=0))
