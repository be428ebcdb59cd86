"""What the library above `surgery` uses of the private parts of Keras and TensorFlow: keras 3.15.1, tensorflow 2.21.0.

No other module of these rooms imports `keras.src` or `tensorflow.python`, or reads an attribute of theirs that begins
with an underscore. tests/nameplate/engine/test_private.py has a table of every symbol and says which one has changed.
A function here only names what Keras keeps; what is done with it is in the module that calls the function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
import tensorflow as tf
from keras.src import backend
from keras.src.backend.common.masking import get_keras_mask, set_keras_mask
from keras.src.backend.tensorflow import nn as nn_module
from keras.src.backend.tensorflow import random as random_module
from keras.src.backend.tensorflow.optimizer import TFOptimizer
from keras.src.losses import loss as loss_module
from keras.src.optimizers.base_optimizer import BaseOptimizer
from tensorflow.python.distribute import collective_all_reduce_strategy as collective_strategy
from tensorflow.python.eager import record

Place = tuple[Any, str]  # a class or module, and the name of its attribute
Patch = tuple[Any, str, Any]  # a place, and the replacement

NEXT_SEED: Place = (keras.random.SeedGenerator, "next")
SCALE_LOSS: Place = (loss_module, "scale_loss_for_distribution")
UNSCALE_LOSS: Place = (loss_module, "unscale_loss_for_distribution")
REDUCE_LOSS: Place = (loss_module, "reduce_weighted_values")
ADD_LOSS: Place = (keras.Layer, "add_loss")
UPDATE_MEAN: Place = (keras.metrics.Mean, "update_state")
UPDATE_SUM: Place = (keras.metrics.Sum, "update_state")
SYNCHRONISED_MOMENTS: Place = (nn_module, "_compute_moments_sync")
LAYER_MOMENTS: Place = (keras.layers.BatchNormalization, "_moments")
DROPOUT: Place = (random_module, "dropout")
APPLY: tuple[Place, ...] = (  # of every class of optimizers that has an `apply` of its own
    (BaseOptimizer, "apply"),
    (keras.optimizers.LossScaleOptimizer, "apply"),
    (keras.optimizers.MultiOptimizer, "apply"),
)
UPDATE_STEP: Place = (TFOptimizer, "_backend_update_step")
_AVERAGES_TO_WEIGHTS = "_overwrite_model_variables_with_average_value"
_UPDATES = ("_apply_weight_decay", "_backend_increment_gradient_accumulators", _AVERAGES_TO_WEIGHTS)


def local_updates() -> list[Patch]:
    """Return the methods of TFOptimizer that merge the replicas, with the plain ones of BaseOptimizer instead."""
    scaled = keras.optimizers.LossScaleOptimizer
    plain = [(TFOptimizer, name, getattr(BaseOptimizer, name)) for name in _UPDATES]
    return [*plain, (scaled, "_tf_apply", scaled._common_apply)]


@contextmanager
def patched(patches: Iterable[Patch]) -> Iterator[None]:
    """Inside, attributes of classes or modules are their replacements; they are put back in reverse order.

    `patches` may be a generator that reads the current attribute to wrap it: each is set before the next is taken.
    """
    before: list[Patch] = []
    try:
        for owner, name, replacement in patches:
            before.append((owner, name, getattr(owner, name)))
            setattr(owner, name, replacement)
        yield
    finally:
        for owner, name, original in reversed(before):
            setattr(owner, name, original)


@contextmanager
def shadowed(instance: Any, name: str, replacement: Any) -> Iterator[None]:
    """Inside, one object has another attribute, set without what Keras does when attributes change."""
    attributes, missing = vars(instance), object()
    before = attributes.get(name, missing)
    attributes[name] = replacement
    try:
        yield
    finally:
        if before is missing:
            attributes.pop(name, None)
        else:
            attributes[name] = before


@contextmanager
def layer_losses(read: Callable[[Any], list[Any]], write: Callable[[Any, list[Any]], None]) -> Iterator[None]:
    """Inside, what layers add to the loss is kept by `read` and `write` (`Layer._losses`, layers/layer.py)."""

    def assign(layer: keras.Layer, losses: list[Any]) -> None:
        write(layer, losses)
        vars(layer).setdefault("_losses", [])  # a layer that is made in here needs its own list afterwards

    around = vars(keras.Layer).get("_losses")
    keras.Layer._losses = property(read, assign)  # a property of the class wins over a layer's own attribute
    try:
        yield
    finally:
        if around is None:
            del keras.Layer._losses
        else:
            keras.Layer._losses = around


# ---- a compiled model -------------------------------------------------------------------------------------------


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """Return what `compile` was called with, by argument."""
    return dict(model._compile_config.config)


def build_compiled(model: keras.Model, example: tuple[Any, ...]) -> None:
    """Create the variables of a compiled model's loss and metrics; `example` holds KerasTensors (x, y[, weight])."""
    model._symbolic_build(data_batch=example)


def evaluate_symbolically(function: Callable[..., Any], *tensors: Any) -> Any:
    """Return `function(*tensors)` as KerasTensors, without computing anything."""
    return backend.compute_output_spec(function, *tensors)


def compute_loss(model: keras.Model, x: Any, y: Any, predicted: Any, weight: Any, *, training: bool) -> Any:
    """Return the model's loss of examples; inside `loss_scaling.scaling` a replica's part of the step's."""
    return model._compute_loss(x=x, y=y, y_pred=predicted, sample_weight=weight, training=training)


@contextmanager
def replaced_losses(model: keras.Model, replaced: Callable[[Any], Any]) -> Iterator[None]:
    """Inside, the model's compiled losses are `replaced(loss)`, each called with (y_true, y_pred, sample_weight)."""
    compiled = model._compile_loss
    losses = None if compiled is None else compiled._flat_losses
    if not losses:
        yield
        return
    compiled._flat_losses = [loss._replace(loss=replaced(loss.loss)) for loss in losses]
    try:
        yield
    finally:
        compiled._flat_losses = losses


def apply_mask(sample_weight: Any, mask: Any, *, dtype: Any, reduction: str) -> Any:
    """Return the weights of examples under a mask as Keras' losses use them (losses/loss.py)."""
    return loss_module.apply_mask(sample_weight, mask, dtype=dtype, reduction=reduction)


def loss_tracker(model: keras.Model) -> keras.metrics.Metric:
    """Return the metric that Keras logs as `loss`."""
    return model._loss_tracker


def output_trackers(model: keras.Model) -> list[keras.metrics.Metric]:
    """Return the metrics that Keras logs as the losses of single outputs."""
    return list(model._compile_loss.metrics) if model._compile_loss is not None else []


def measured_metrics(model: keras.Model) -> list[keras.metrics.Metric]:
    """Return the metrics of a model that are updated themselves, not those that only hold others."""
    metrics: list[keras.metrics.Metric] = []
    for metric in model.metrics:
        metrics += metric.metrics if metric is model._compile_metrics else [metric]
    return metrics


def metric_function(metric: keras.metrics.Metric) -> Any:
    """Return the function that a metric takes the mean of; the metric's class if it has none (`MeanMetricWrapper`)."""
    return getattr(metric, "_fn", type(metric))


def in_keras_order(model: keras.Model, values: dict[str, Any]) -> Any:
    """Return the values of `evaluate` in a list in Keras' order, or a single value by itself."""
    return model._flatten_metrics_in_order(values)


def takes_training(model: keras.Model) -> bool:
    """Say whether the model's `call` takes an argument `training`."""
    return bool(model._call_has_training_arg)


def restored_epoch(model: keras.Model) -> int | None:
    """Return and forget the epoch that BackupAndRestore has restored a model to, lest the next `fit` start there."""
    epoch, model._initial_epoch = model._initial_epoch, None
    return epoch


def start_at_epoch(model: keras.Model, epoch: int) -> None:
    """Let the `model.fit` that has just begun start at an epoch."""
    model._initial_epoch = epoch


def profiles_batches(callback: keras.callbacks.TensorBoard) -> bool:
    """Say whether a TensorBoard callback traces batches."""
    return bool(callback._should_trace)


# ---- layers -----------------------------------------------------------------------------------------------------


def reduction_axes(layer: keras.layers.BatchNormalization) -> list[int]:
    """Return the axes that a layer takes the moments of its inputs over."""
    return layer._reduction_axes


@contextmanager
def any_size(graphs: Sequence[Any]) -> Iterator[None]:
    """Inside, models do not compare the sizes of their inputs with those they were built for; their layers still do."""
    for graph in graphs:
        graph.__dict__["_assert_input_compatibility"] = lambda *_: None
    try:
        yield
    finally:
        for graph in graphs:
            graph.__dict__.pop("_assert_input_compatibility", None)


# ---- variables and tensors --------------------------------------------------------------------------------------


def copies(variable: keras.Variable) -> tuple[tf.Variable, ...]:
    """Return a variable's copy on each replica of this process, in replica order."""
    return tf.distribute.get_strategy().experimental_local_results(variable._value)


def aggregation(variable: keras.Variable) -> Any:
    """Return how TensorFlow brings together what replicas assign to a variable; None if it is on one device."""
    return getattr(variable._value, "_aggregation", None)


def set_aggregation(variable: keras.Variable, to: Any) -> None:
    """Set how TensorFlow brings together what replicas assign to a variable, and what it reads outside of them."""
    variable._value._aggregation = to


def masks(outputs: Any) -> list[Any]:
    """Return the masks that outputs carry for losses and metrics, None for an output without."""
    return [get_keras_mask(output) for output in tf.nest.flatten(outputs)]


def set_masks(outputs: Any, held: Sequence[Any]) -> None:
    """Set the masks of outputs again, which are lost when they leave a `tf.function`."""
    for output, mask in zip(tf.nest.flatten(outputs), held, strict=True):
        if mask is not None:
            set_keras_mask(output, mask)


def logits(output: Any) -> Any:
    """Return what a softmax or sigmoid made a tensor from (`_keras_logits`, backend/tensorflow/nn.py), or itself."""
    return getattr(output, "_keras_logits", output)


# ---- optimizers -------------------------------------------------------------------------------------------------


def built_for(optimizer: keras.Optimizer) -> list[keras.Variable]:
    """Return the variables that an optimizer was built for, in its order."""
    return list(optimizer._trainable_variables)


def index_of(optimizer: keras.Optimizer, variable: Any) -> int:
    """Return the place of a variable, Keras' or TensorFlow's, among those that the optimizer was built for."""
    return optimizer._get_variable_index(variable)


@contextmanager
def one_variable(optimizer: keras.Optimizer, slots: Mapping[str, Any]) -> Iterator[None]:
    """Inside, `update_step` finds one variable whatever it is given, with these slots by attribute."""
    with ExitStack() as stack:
        for attribute, slot in slots.items():
            stack.enter_context(shadowed(optimizer, attribute, [slot]))
        stack.enter_context(shadowed(optimizer, "_get_variable_index", lambda _: 0))
        yield


def lists_by_variable(optimizer: keras.Optimizer) -> dict[str, list[Any]]:
    """Return the lists that an optimizer keeps with an entry for each variable it was built for, by attribute.

    Among them may be TensorFlow's bookkeeping on the same object, if it happens to be as long.
    """
    count = len(optimizer._trainable_variables)
    return {
        attribute: held
        for attribute, held in vars(optimizer).items()
        if isinstance(held, list) and len(held) == count and attribute not in ("_variables", "_trainable_variables")
    }


NO_SLOTS = ("_accumulated_gradients", "_model_variables_moving_average")  # lists that `update_step` does not touch


def averages(optimizer: keras.Optimizer) -> list[Any] | None:
    """Return an optimizer's moving averages by the order of its variables; None if it has created none yet."""
    return getattr(optimizer, "_model_variables_moving_average", None) if optimizer.use_ema else None


def averages_to_weights() -> Patch:
    """Return Keras' plain method that sets weights to their moving averages, in place of TFOptimizer's.

    TFOptimizer's fails on a variable without an average, such as a scale of float8.
    """
    return (TFOptimizer, _AVERAGES_TO_WEIGHTS, getattr(BaseOptimizer, _AVERAGES_TO_WEIGHTS))


def update_variables(optimizer: keras.Optimizer, gradients: list[Any], variables: list[Any], rate: Any) -> None:
    """Update variables one by one, as BaseOptimizer does."""
    BaseOptimizer._backend_update_step(optimizer, gradients, variables, rate)


def set_decay(optimizer: keras.Optimizer, decay: Callable[[Sequence[Any]], None]) -> None:
    """Let `decay(variables)` decay an optimizer's weights (`BaseOptimizer._apply_weight_decay`)."""
    optimizer._apply_weight_decay = decay


def decay_as_class(optimizer: keras.Optimizer, variables: Sequence[Any]) -> None:
    """Decay weights as the optimizer's class does now: `updating_locally` replaces the method there."""
    type(optimizer)._apply_weight_decay(optimizer, variables)


@contextmanager
def counted_once(optimizer: keras.Optimizer) -> Iterator[None]:
    """Inside, the number of an optimizer's steps is a tensor that has been read once (`_iterations`)."""
    with shadowed(optimizer, "_iterations", tf.convert_to_tensor(optimizer._iterations.value)):
        yield


@contextmanager
def learning_at(optimizer: keras.Optimizer, learning_rate: Any) -> Iterator[None]:
    """Inside, an optimizer has another learning rate or schedule, also in its configuration.

    The public setter refuses a number in the place of a schedule (optimizers/base_optimizer.py).
    """
    with shadowed(optimizer, "_learning_rate", learning_rate):
        yield


def learning_rate_of(optimizer: keras.Optimizer) -> Any:
    """Return an optimizer's learning rate as it was given: a schedule, a variable or a callable."""
    return optimizer._learning_rate


# ---- TensorFlow -------------------------------------------------------------------------------------------------


def with_gradient(
    outputs: Sequence[tf.Tensor], inputs: Sequence[tf.Tensor], gradient: Callable[..., Sequence[Any]]
) -> list[tf.Tensor]:
    """Return the outputs as if computed from the inputs by an operation with this gradient.

    `gradient` is called with the gradients by the outputs and returns those by the inputs. `tf.custom_gradient` would
    keep the function, and with it the graph and the data that it holds, until the process ends; and it would search
    the graph behind the outputs for variables (ops/custom_gradient.py).
    """
    with record.stop_recording():
        copies = [tf.identity(output) for output in outputs]
    record.record_operation("WithGradient", copies, list(inputs), gradient)
    return copies


def trace_often(graph: Any) -> None:
    """Let a `tf.function` be traced often without a warning (eager/polymorphic_function)."""
    graph._omit_frequent_tracing_warning = True


def local_devices(devices: Sequence[str], kind: str) -> Patch:
    """Return the method by which a strategy over several processes finds its devices, replaced by these, of a kind.

    TensorFlow gives a worker without GPUs one replica, however many logical devices its CPU is divided into. A device
    is e.g. `device:CPU:0`.
    """

    def of_this_worker(strategy: Any, resolver: Any, worker_device: str) -> tuple[tuple[str, ...], str]:
        return tuple(f"{worker_device}/{device}" for device in devices), kind

    return (collective_strategy.CollectiveAllReduceExtended, "_initialize_local_devices", of_this_worker)


# ---- a `tf.data` pipeline (data/ops/*.py) -----------------------------------------------------------------------


def inputs_of(dataset: tf.data.Dataset) -> Sequence[tf.data.Dataset]:
    """Return the datasets that a dataset is made from (`DatasetV2._inputs`)."""
    return dataset._inputs()


def seeds_of(dataset: tf.data.Dataset) -> list[Any]:
    """Return the two seeds of a dataset that draws, both 0 without a seed; None for one that does not draw."""
    return [getattr(dataset, "_seed", None), getattr(dataset, "_seed2", None)]


def keeps_order(dataset: tf.data.Dataset) -> bool:
    """Say whether a parallel step keeps the order of its elements (`_deterministic`, a string)."""
    return getattr(dataset, "_deterministic", None) != "false"


def serialized_graph(dataset: tf.data.Dataset) -> bytes:
    """Return a pipeline as a serialized GraphDef, without its state (`DatasetV2._as_serialized_graph`)."""
    ignore = tf.data.experimental.ExternalStatePolicy.IGNORE
    return dataset._as_serialized_graph(external_state_policy=ignore).numpy()
