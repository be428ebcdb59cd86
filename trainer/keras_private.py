"""Every use of what Keras and TensorFlow keep private, read in keras 3.15.1 and tensorflow 2.21.0.

tests/trainer/test_keras_private.py fails when one of them changes.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf
from keras.src.optimizers.base_optimizer import BaseOptimizer
from keras.src.trainers.data_adapters.data_adapter_utils import unpack_x_y_sample_weight as unpack

__all__ = [
    "build_compiled",
    "compute_loss",
    "copies",
    "loss_tracker",
    "overridden",
    "replica_streams",
    "unpack",
    "update_locally",
]

# What TFOptimizer sends through cross-replica updates, and BaseOptimizer does with plain assignments.
_UPDATES = (
    "_backend_update_step",
    "_apply_weight_decay",
    "_backend_increment_gradient_accumulators",
    "_overwrite_model_variables_with_average_value",
)
# Odd, so that multiples of it visit every 32-bit number before one returns (Knuth, multiplicative hashing).
_STREAM = 0x9E3779B1


def build_compiled(model: keras.Model, example: tuple[Any, ...]) -> None:
    """Create the variables of a compiled model's loss and metrics; `example` holds KerasTensors (x, y[, weight])."""
    model._symbolic_build(data_batch=example)


def compute_loss(model: keras.Model, x: Any, y: Any, predicted: Any, weight: Any, *, training: bool) -> Any:
    """Return the model's loss on one replica's share, divided by the number of replicas, as Keras has it."""
    return model._compute_loss(x=x, y=y, y_pred=predicted, sample_weight=weight, training=training)


def loss_tracker(model: keras.Model) -> keras.metrics.Metric:
    """Return the metric that Keras logs as `loss`."""
    return model._loss_tracker


def overridden(model: keras.Model, method: str) -> bool:
    """Say whether the model's class brings a `train_step`, `test_step` or the like of its own."""
    return getattr(type(model), method) is not getattr(keras.Model, method)


def copies(variable: keras.Variable) -> tuple[tf.Variable, ...]:
    """Return a variable's copy on each replica of this process, in replica order."""
    return tf.distribute.get_strategy().experimental_local_results(variable._value)


def update_locally(optimizer: keras.Optimizer) -> None:
    """Make every replica apply an optimizer's updates to its own copies.

    The gradients that reach `apply` must already be summed over the replicas: then each replica computes the same
    update, no second collective is needed, and a condition around an update (loss scaling, accumulation) is an
    ordinary condition. Through TFOptimizer each would be a merge call, which no branch may hold.
    """
    for variable in optimizer.variables:
        variable._value._aggregation = tf.VariableAggregation.NONE
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer._tf_apply = optimizer._common_apply
        update_locally(optimizer.inner_optimizer)
        return
    for name in _UPDATES:
        setattr(optimizer, name, types.MethodType(getattr(BaseOptimizer, name), optimizer))


@contextmanager
def replica_streams() -> Iterator[None]:
    """While a step is traced, let every replica draw its own random numbers from each seed generator.

    Each replica steps an identical copy of a generator's state, so the states stay equal and are saved once; what
    is drawn comes from the state and the replica's number. Replica 0 draws what one device would.
    """
    drawn = keras.random.SeedGenerator.next

    def of_replica(generator: keras.random.SeedGenerator, ordered: bool = True) -> Any:
        seed = drawn(generator, ordered)
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return seed
        shift = tf.cast(context.replica_id_in_sync_group, tf.int64) * _STREAM % 2**32
        return seed + tf.stack([tf.cast(shift, seed.dtype), tf.zeros((), seed.dtype)])

    keras.random.SeedGenerator.next = of_replica
    try:
        yield
    finally:
        keras.random.SeedGenerator.next = drawn


def inner_optimizer(optimizer: keras.Optimizer) -> keras.Optimizer:
    """Return the optimizer that holds the slots: the one inside a LossScaleOptimizer, or itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def takes_training(model: keras.Model) -> bool:
    """Say whether the model's `call` has an argument `training`."""
    return bool(model._call_has_training_arg)


def built_for(optimizer: keras.Optimizer) -> list[keras.Variable]:
    """Return the variables that an optimizer was built for, in its order."""
    return list(optimizer._trainable_variables)
