"""Class weights: weights of examples in the loss, by their labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def class_weights(weights: Mapping[int, float] | None) -> tf.Tensor | None:
    """Return weights by class as a vector, 1 if none is given, with a last 1 for all other labels; or None."""
    if not weights:
        return None
    vector = np.ones(max(weights) + 2, keras.config.floatx())
    vector[list(weights)] = list(weights.values())
    return tf.constant(vector)


def weighted_by_class(y: tf.Tensor, weight: Any, weights: tf.Tensor, *, rank: int | None) -> tf.Tensor:
    """Return the weight of every label of `y`, times the `weight` that its example may have already.

    `weights` is from `class_weights`, `rank` is that of the model's output, None if unknown. Labels without a weight,
    negative ones among them, have 1.
    """
    labels = _labels(y, rank=rank)
    beyond = weights.shape[0] - 1
    of_label = tf.gather(weights, tf.where((labels < 0) | (labels > beyond), tf.cast(beyond, labels.dtype), labels))
    return of_label if weight is None else _aligned(tf.cast(weight, of_label.dtype), of_label.shape.rank) * of_label


def _labels(y: tf.Tensor, *, rank: int | None) -> tf.Tensor:
    """Return labels as integers: as in Keras, the last axis of `y` is one-hot, or has size 1 and is dropped.

    If the model's output has one axis more than `y`, that axis is over classes, and `y` holds the labels themselves.
    (Keras takes a sequence of labels for one-hot then.)
    """
    if y.shape.rank > 1 and rank != y.shape.rank + 1:
        if y.shape[-1] is None:
            return tf.cond(tf.shape(y)[-1] > 1, lambda: tf.argmax(y, -1), lambda: _rounded(tf.squeeze(y, -1)))
        if y.shape[-1] > 1:
            return tf.argmax(y, -1)
        y = tf.squeeze(y, -1)
    return _rounded(y)


def _rounded(y: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.round(y) if y.dtype.is_floating else y, tf.int64)


def _aligned(weight: tf.Tensor, rank: int) -> tf.Tensor:
    """Return weights of examples in a shape that broadcasts over the labels of each."""
    if weight.shape.rank > rank and weight.shape[-1] == 1:
        weight = tf.squeeze(weight, -1)
    return tf.reshape(weight, tf.concat([tf.shape(weight), tf.ones([max(rank - weight.shape.rank, 0)], tf.int32)], 0))
