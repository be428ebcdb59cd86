"""Means over the replicas: batch statistics of a step, and variables of which each replica has its own value.

Batch statistics: each replica takes the mean of its own values and their squared distances from it, as one device does,
and all are combined (Chan, Golub and LeVeque, 1979). The usual E[x²] - E[x]² loses the variance where the mean is
large: for values around 1000 with variance 1 it keeps one digit in float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf

from nameplate.engine.collectives import in_own_place, other_replicas, sum_of_gradients, sum_over_replicas
from nameplate.engine.host_collectives import gather_arrays
from nameplate.engine.private import copies, with_gradient
from nameplate.graph.tree import layers


def moments(x: tf.Tensor, axes: Sequence[int], *, mask: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
    """Return mean and variance of x over `axes` and all replicas; these axes have size 1.

    `mask`, of x's shape, is 1 where a value counts and 0 elsewhere. It takes one collective, and one for gradients.
    """
    if not other_replicas():
        total, mean, distances = _of_this_replica(x, list(axes), mask)
        return mean, tf.math.divide_no_nan(distances, total)
    total, *constants = _over_all(_of_this_replica(tf.stop_gradient(x), list(axes), mask))
    connected: list[tf.Tensor] = []

    def gradient(of_mean: tf.Tensor, of_variance: tf.Tensor) -> list[tf.Tensor]:
        # By x, the derivative of the mean is 1 / total, and of the variance 2 (x - mean) / total. The mean is the
        # connected one, not the constant, so that second derivatives are right.
        both = tf.math.divide_no_nan(sum_of_gradients(tf.stack([of_mean, 2.0 * of_variance])), total)
        of_mean, of_variance = tf.unstack(both)
        of_x = of_mean + of_variance * (x - connected[0])
        return [of_x if mask is None else of_x * mask]

    connected += with_gradient(constants, [x], gradient)
    return connected[0], connected[1]


def _of_this_replica(x: tf.Tensor, axes: list[int], mask: tf.Tensor | None) -> list[tf.Tensor]:
    """Return the number of values, their mean, and the sum of their squared distances from it."""
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
    counts, means, distances = tf.unstack(sum_over_replicas(in_own_place(tf.stack(own))), axis=1)
    total = tf.reduce_sum(counts, 0)
    mean = tf.math.divide_no_nan(tf.reduce_sum(counts * means, 0), total)
    between = counts * tf.math.squared_difference(means, mean)
    return total, mean, tf.math.divide_no_nan(tf.reduce_sum(distances + between, 0), total)


def in_host_memory(array: np.ndarray) -> tf.Tensor:
    """Return a tensor that a variable in host memory takes over without another copy."""
    with tf.device("CPU:0"):
        return tf.convert_to_tensor(array)


def values_on_replicas(variables: Mapping[str, keras.Variable]) -> dict[str, list[np.ndarray]]:
    """Return each replica's values, by name, in the order of all replicas; all workers must call this together."""
    return gather_arrays({name: _own(variable) for name, variable in variables.items()})


def replica_mean(values: list[np.ndarray]) -> np.ndarray:
    """Return the mean over the replicas, or their value if it is the same on all; for other than floats the first."""
    if not _differ(values) or not np.issubdtype(values[0].dtype, np.floating):
        return values[0]
    return np.mean(values, axis=0, dtype=np.float64).astype(values[0].dtype)


def unsynchronised(model: keras.Model) -> list[keras.Variable]:
    """Return the variables that may differ between replicas; none on one replica."""
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return []
    own_layers = [layer for layer in layers(model).values() if isinstance(layer, keras.Layer)]  # others hold nothing
    alike = {id(variable) for layer in own_layers if _is_alike(layer) for variable in layer.variables}
    return [variable for variable in model.non_trainable_variables if id(variable) not in alike]


def assign_replica_means(variables: Iterable[keras.Variable]) -> None:
    """Set variables that differ between replicas to the mean, for good."""
    for variable, _, value in _differing(variables):
        variable.assign(value)


@contextmanager
def synchronised(model: keras.Model, *, sync_batch_norm: bool) -> Iterator[None]:
    """Inside, batch statistics are taken over all replicas; afterwards the layers are as they were."""
    norms = [each for each in layers(model).values() if isinstance(each, keras.layers.BatchNormalization)]
    before = [norm.synchronized for norm in norms]
    for norm in norms:
        norm.synchronized = norm.synchronized or sync_batch_norm
    try:
        yield
    finally:
        for norm, own in zip(norms, before, strict=True):
            norm.synchronized = own


@contextmanager
def at_replica_means(variables: Iterable[keras.Variable]) -> Iterator[None]:
    """Inside, variables that differ between replicas have the mean; afterwards each its own, unless changed inside."""
    held = []
    for variable, own, value in _differing(variables):
        held.append((variable, own, value))
        variable.assign(value)
    try:
        yield
    finally:
        for variable, own, value in held:
            for copy, before in zip(copies(variable), own, strict=True):
                if copy.numpy().tobytes() == value.tobytes():
                    copy.assign(before)


def _differing(
    variables: Iterable[keras.Variable],
) -> Iterator[tuple[keras.Variable, list[np.ndarray], np.ndarray]]:
    """Yield the variables that differ between replicas, with their values on this process's replicas and the mean."""
    named = {str(place): variable for place, variable in enumerate(variables)}
    for name, values in values_on_replicas(named).items():
        if _differ(values):
            yield named[name], _own(named[name]), replica_mean(values)


def _is_alike(layer: keras.Layer) -> bool:
    """Say whether all that a layer gathers in training is the same on every replica: in Keras, but for batch norm."""
    if isinstance(layer, keras.layers.BatchNormalization):
        return bool(layer.synchronized)
    holds_others = isinstance(layer, keras.Model | keras.layers.Wrapper | keras.layers.RNN)
    return type(layer).__module__.startswith("keras.") and not holds_others


def _own(variable: keras.Variable) -> list[np.ndarray]:
    return [np.array(copy.numpy()) for copy in copies(variable)]


def _differ(values: list[np.ndarray]) -> bool:
    return any(value.tobytes() != values[0].tobytes() for value in values[1:])
