"""A model's computations without randomness or batch statistics, so that the rows of a batch are independent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.tensorflow import random as random_module
from keras.src.optimizers.base_optimizer import BaseOptimizer

from nameplate.engine.private.patches import patched
from nameplate.engine.reductions import current_pass

_FRACTION = 0.4  # of the way between the ends of a range lies the constant that is drawn from it


@contextmanager
def deterministic() -> Iterator[None]:
    """Inside, random numbers are constants, dropout keeps all, batch statistics are the moving ones, no update is made.

    Keras draws through `tf.random.stateless_...` (backend/tensorflow/random.py), a user's code often through
    `tf.random.normal` and `uniform`. Both look the function up as an attribute at each call, so it can be replaced.
    """
    with patched(_REPLACED):
        yield


def _normal(shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = tf.float32, **_: Any) -> tf.Tensor:
    return tf.broadcast_to(tf.cast(mean, dtype) + tf.cast(stddev, dtype) * _FRACTION, _dimensions(shape))


def _uniform(shape: Any, minval: Any = 0, maxval: Any = None, dtype: Any = tf.float32, **_: Any) -> tf.Tensor:
    low, high = tf.cast(minval, tf.float64), tf.cast(1 if maxval is None else maxval, tf.float64)
    return tf.broadcast_to(tf.cast(low + _FRACTION * (high - low), dtype), _dimensions(shape))


def _stateless_normal(shape: Any, seed: Any = None, *arguments: Any, **keywords: Any) -> tf.Tensor:
    return _normal(shape, *arguments, **keywords)


def _stateless_uniform(shape: Any, seed: Any = None, *arguments: Any, **keywords: Any) -> tf.Tensor:
    return _uniform(shape, *arguments, **keywords)


def _dimensions(shape: Any) -> tf.Tensor:
    return tf.cast(tf.convert_to_tensor(shape) if len(shape) else tf.zeros([0], tf.int32), tf.int32)


def _kept(inputs: Any, *_: Any, **__: Any) -> Any:
    return inputs


def _moving(layer: keras.layers.BatchNormalization, inputs: Any, mask: Any) -> tuple[tf.Tensor, tf.Tensor]:
    del mask
    return tf.cast(layer.moving_mean.value, inputs.dtype), tf.cast(layer.moving_variance.value, inputs.dtype)


def _apply(optimizer: keras.Optimizer, grads: Any, trainable_variables: Any = None) -> None:
    del optimizer, trainable_variables
    step_pass = current_pass()
    if step_pass is not None:
        step_pass.gradients.append(list(grads))


_REPLACED: tuple[tuple[Any, str, Any], ...] = (
    (tf.random, "normal", _normal),
    (tf.random, "truncated_normal", _normal),
    (tf.random, "uniform", _uniform),
    (tf.random, "stateless_normal", _stateless_normal),
    (tf.random, "stateless_truncated_normal", _stateless_normal),
    (tf.random, "stateless_uniform", _stateless_uniform),
    (random_module, "dropout", _kept),
    (keras.layers.BatchNormalization, "_moments", _moving),
    (BaseOptimizer, "apply", _apply),
    (keras.optimizers.LossScaleOptimizer, "apply", _apply),
    (keras.optimizers.MultiOptimizer, "apply", _apply),
)
