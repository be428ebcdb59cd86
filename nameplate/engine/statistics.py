"""Mean and variance over the examples of all replicas: one formula for any number of them, precise for any mean.

Each replica takes the mean and the squared distances from it of its own values, as one device does, and all combine
them (Chan, Golub and LeVeque, 1979). The usual E[x²] - E[x]² loses the variance where the mean is large: of values
around 1000 with variance 1 it keeps one digit in float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf

from nameplate.engine.collectives import in_its_place, over_several, sum_of_gradients, sum_over_replicas
from nameplate.engine.exchange import of_all_replicas
from nameplate.engine.private.compiled import copies
from nameplate.engine.private.tracing import with_gradient
from nameplate.graph.tree import layers


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


def values_on_replicas(variables: Mapping[str, keras.Variable]) -> dict[str, list[np.ndarray]]:
    """Return what each replica has of its own, by name, in the order of all replicas; all workers ask together."""
    return of_all_replicas({name: _own(variable) for name, variable in variables.items()})


def agreed(values: list[np.ndarray]) -> np.ndarray:
    """Return the mean over the replicas, or the value itself where they agree; of what is not a float, the first's."""
    if not _apart(values) or not np.issubdtype(values[0].dtype, np.floating):
        return values[0]
    return np.mean(values, axis=0, dtype=np.float64).astype(values[0].dtype)


def unsynchronised(model: keras.Model) -> list[keras.Variable]:
    """Return the variables that replicas may keep apart; none on one replica."""
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return []
    every = [layer for layer in layers(model).values() if isinstance(layer, keras.Layer)]  # operations hold nothing
    alike = {id(variable) for layer in every if _is_alike(layer) for variable in layer.variables}
    return [variable for variable in model.non_trainable_variables if id(variable) not in alike]


def settle(variables: Iterable[keras.Variable]) -> None:
    """Give every replica the agreed values, for good."""
    for variable, _, value in _disagreeing(variables):
        variable.assign(value)


@contextmanager
def in_agreement(variables: Iterable[keras.Variable]) -> Iterator[None]:
    """Give every replica the agreed values, and each its own again afterwards, unless they were changed meanwhile."""
    held = []
    for variable, own, value in _disagreeing(variables):
        held.append((variable, own, value))
        variable.assign(value)
    try:
        yield
    finally:
        for variable, own, value in held:
            for copy, its in zip(copies(variable), own, strict=True):
                if copy.numpy().tobytes() == value.tobytes():
                    copy.assign(its)


def _disagreeing(
    variables: Iterable[keras.Variable],
) -> Iterator[tuple[keras.Variable, list[np.ndarray], np.ndarray]]:
    """Yield what differs between replicas, with its values on those of this process and the agreed one."""
    named = {str(place): variable for place, variable in enumerate(variables)}
    for name, values in values_on_replicas(named).items():
        if _apart(values):
            yield named[name], _own(named[name]), agreed(values)


def _is_alike(layer: keras.Layer) -> bool:
    """Say whether nothing that a layer gathers in training is a replica's own: Keras' layers gather nothing else."""
    if isinstance(layer, keras.layers.BatchNormalization):
        return bool(layer.synchronized)
    holds_others = isinstance(layer, keras.Model | keras.layers.Wrapper | keras.layers.RNN)
    return type(layer).__module__.startswith("keras.") and not holds_others


def _own(variable: keras.Variable) -> list[np.ndarray]:
    return [np.array(copy.numpy()) for copy in copies(variable)]


def _apart(values: list[np.ndarray]) -> bool:
    return any(value.tobytes() != values[0].tobytes() for value in values[1:])
