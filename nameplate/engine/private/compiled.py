"""A compiled model: its losses, metrics and variables, and which of its methods are overridden."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src import backend
from keras.src.backend.common.masking import get_keras_mask, set_keras_mask
from keras.utils import unpack_x_y_sample_weight as unpack

__all__ = [
    "as_logged",
    "build_compiled",
    "compute_loss",
    "copies",
    "has_own_call",
    "in_keras_order",
    "is_mean_of_rows",
    "is_read_on_first_replica",
    "is_sum_of_states",
    "loss_tracker",
    "masks",
    "measured_metrics",
    "metric_values",
    "output_trackers",
    "overridden",
    "read_on_first_replica",
    "replaced_losses",
    "set_masks",
    "takes_training",
    "unpack",
]


def build_compiled(model: keras.Model, example: tuple[Any, ...]) -> None:
    """Create the variables of a compiled model's loss and metrics; `example` holds KerasTensors (x, y[, weight])."""
    model._symbolic_build(data_batch=example)


def evaluate_symbolically(model: keras.Model, example: tuple[Any, ...]) -> None:
    """Evaluate a built model symbolically, without computing anything; raises what Keras would."""

    def evaluate(x: Any, y: Any, weight: Any) -> Any:
        predicted = model(x, training=False) if takes_training(model) else model(x)
        model._compute_loss(x=x, y=y, y_pred=predicted, sample_weight=weight, training=False)
        model.compute_metrics(x, y, predicted, sample_weight=weight)
        return predicted

    backend.compute_output_spec(evaluate, *example)


def adds_losses(model: keras.Model, example: tuple[Any, ...]) -> bool:
    """Say whether a built model's layers add losses in training; `example` as for `build_compiled`."""
    losses: list[Any] = []

    def forward(x: Any) -> Any:
        with keras.StatelessScope(collect_losses=True):
            predicted = model(x, training=True) if takes_training(model) else model(x)
            losses.extend(model.losses)
        return predicted

    backend.compute_output_spec(forward, example[0])
    return bool(losses)


def compute_loss(model: keras.Model, x: Any, y: Any, predicted: Any, weight: Any, *, training: bool) -> Any:
    """Return the model's loss of examples; inside `loss_scaling.scaling` a replica's part of the step's."""
    return model._compute_loss(x=x, y=y, y_pred=predicted, sample_weight=weight, training=training)


def in_keras_order(model: keras.Model, values: dict[str, Any]) -> Any:
    """Return the values of `evaluate` in a list in Keras' order, or a single value by itself."""
    return model._flatten_metrics_in_order(values)


def loss_tracker(model: keras.Model) -> keras.metrics.Metric:
    """Return the metric that Keras logs as `loss`."""
    return model._loss_tracker


def metric_values(model: keras.Model) -> dict[str, float | np.ndarray]:
    """Return the model's metrics by name, as Keras logs them: an array for one that gives several numbers."""
    return {name: as_logged(each) for name, each in model.get_metrics_result().items()}


def as_logged(value: Any) -> float | np.ndarray:
    """Return a metric's result as a number, or as an array if it is several."""
    if tf.is_tensor(value) or isinstance(value, keras.Variable):
        value = tf.convert_to_tensor(value)
        value = tf.cast(value, tf.float32) if value.dtype.size < 4 else value  # NumPy has no bfloat16
    array = np.asarray(value)
    return float(array) if array.ndim == 0 else array


def output_trackers(model: keras.Model) -> list[keras.metrics.Metric]:
    """Return the metrics that Keras logs as the losses of single outputs."""
    return list(model._compile_loss.metrics) if model._compile_loss is not None else []


def overridden(model: keras.Model, method: str) -> bool:
    """Say whether the model's class overrides a method such as `train_step` or `test_step`."""
    return getattr(type(model), method) is not getattr(keras.Model, method)


def takes_training(model: keras.Model) -> bool:
    """Say whether the model's `call` takes an argument `training`."""
    return bool(model._call_has_training_arg)


def copies(variable: keras.Variable) -> tuple[tf.Variable, ...]:
    """Return a variable's copy on each replica of this process, in replica order."""
    return tf.distribute.get_strategy().experimental_local_results(variable._value)


def masks(outputs: Any) -> list[Any]:
    """Return the masks that outputs carry for losses and metrics, None for an output without."""
    return [get_keras_mask(each) for each in tf.nest.flatten(outputs)]


def set_masks(outputs: Any, held: Sequence[Any]) -> None:
    """Set the masks of outputs again, which are lost when they leave a `tf.function`."""
    for each, mask in zip(tf.nest.flatten(outputs), held, strict=True):
        if mask is not None:
            set_keras_mask(each, mask)


@contextmanager
def replaced_losses(model: keras.Model, replaced: Callable[[Any], Any]) -> Iterator[None]:
    """Inside, the model's compiled losses are `replaced(loss)`, each called with (y_true, y_pred, sample_weight)."""
    compiled = model._compile_loss
    held = None if compiled is None else compiled._flat_losses
    if not held:
        yield
        return
    compiled._flat_losses = [each._replace(loss=replaced(each.loss)) for each in held]
    try:
        yield
    finally:
        compiled._flat_losses = held


def has_own_call(loss: keras.losses.Loss) -> bool:
    """Say whether a loss overrides `__call__`, and so the reduction, too."""
    return type(loss).__call__ is not keras.losses.Loss.__call__


def is_mean_of_rows(loss: keras.losses.Loss) -> bool:
    """Say whether a loss is one of Keras' that gives each example a number, whatever else is in the batch.

    Circle, and Dice and Tversky by default, compare the examples of a batch with each other.
    """
    function = getattr(loss, "fn", loss.call)
    known = _is_keras(type(loss)) and _is_keras(function) and not has_own_call(loss)
    return known and function not in (keras.losses.circle, keras.losses.dice, keras.losses.tversky)


def is_sum_of_states(metric: keras.metrics.Metric) -> bool:
    """Say whether a metric is one of Keras': their states over shares add up to the state over all examples."""
    return _is_keras(type(metric)) and _is_keras(getattr(metric, "_fn", type(metric)))


def _is_keras(what: Any) -> bool:
    return str(getattr(what, "__module__", "")).startswith("keras.")


def measured_metrics(model: keras.Model) -> list[keras.metrics.Metric]:
    """Return the metrics of a model that are updated themselves, not those that only hold others."""
    metrics: list[keras.metrics.Metric] = []
    for metric in model.metrics:
        metrics += metric.metrics if metric is model._compile_metrics else [metric]
    return metrics


def is_read_on_first_replica(variable: keras.Variable) -> bool:
    """Say whether a metric's variable is the same on all replicas, so that its values do not add up."""
    return getattr(variable._value, "_aggregation", None) is tf.VariableAggregation.ONLY_FIRST_REPLICA


def read_on_first_replica(metric: keras.metrics.Metric) -> None:
    """Read a metric's variables, which are the same on all replicas, from the first instead of adding them up."""
    for variable in metric.variables:
        variable._value._aggregation = tf.VariableAggregation.ONLY_FIRST_REPLICA
