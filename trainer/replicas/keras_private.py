"""Every use of what Keras and TensorFlow keep private, read in keras 3.15.1 and tensorflow 2.21.0.

tests/trainer/test_keras_private.py fails when one of them changes.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.tensorflow import nn as nn_module
from keras.src.backend.tensorflow.optimizer import TFOptimizer
from keras.src.losses import loss as loss_module
from keras.src.optimizers.base_optimizer import BaseOptimizer
from keras.src.trainers.data_adapters.data_adapter_utils import unpack_x_y_sample_weight as unpack
from tensorflow.python.distribute import collective_all_reduce_strategy as collective_strategy

from models.errors import NameplateError
from trainer.replicas import part
from trainer.replicas.moments import moments
from trainer.replicas.packing import Together, flat, is_small

__all__ = [
    "any_size",
    "as_one_device",
    "build_compiled",
    "capturing",
    "compute_loss",
    "copies",
    "idle_hooks",
    "logits",
    "loss_tracker",
    "multi_worker",
    "output_trackers",
    "overridden",
    "scale_updates",
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
    """Return the model's loss of examples; within `trainer.replicas.part.tracing` a replica's part of the step's."""
    return model._compute_loss(x=x, y=y, y_pred=predicted, sample_weight=weight, training=training)


def loss_tracker(model: keras.Model) -> keras.metrics.Metric:
    """Return the metric that Keras logs as `loss`."""
    return model._loss_tracker


def output_trackers(model: keras.Model) -> list[keras.metrics.Metric]:
    """Return the metrics that Keras logs as the losses of several outputs."""
    return list(model._compile_loss.metrics) if model._compile_loss is not None else []


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
    optimizer._backend_update_step = types.MethodType(_update_step, optimizer)


# Their update is one formula for every element of every variable, whatever its shape.
_ELEMENTWISE = (
    keras.optimizers.SGD,
    keras.optimizers.Adam,
    keras.optimizers.AdamW,
    keras.optimizers.RMSprop,
    keras.optimizers.Lion,
)


def _update_step(optimizer: Any, gradients: list[Any], variables: list[Any], learning_rate: Any) -> None:
    """Update all variables with one reading of the step's number and of the learning rate, small ones as one.

    Keras reads both anew for every variable. With 50 small layers Adam's update has a third of the operations so, and
    tracing it takes a third of the time.
    """
    iterations = optimizer._iterations
    if isinstance(learning_rate, keras.Variable):
        learning_rate = tf.convert_to_tensor(learning_rate.value)
    vars(optimizer)["_iterations"] = tf.convert_to_tensor(iterations.value)
    try:
        rest = _update_small(optimizer, gradients, variables, learning_rate)
        gradients, variables = [gradients[place] for place in rest], [variables[place] for place in rest]
        with _plain_updates():
            type(optimizer)._backend_update_step(optimizer, gradients, variables, learning_rate)
    finally:
        vars(optimizer)["_iterations"] = iterations


@contextmanager
def _plain_updates() -> Iterator[None]:
    """Let what an optimizer of Keras' does around its updates (Nadam) find plain ones at the bottom."""
    original = TFOptimizer._backend_update_step
    TFOptimizer._backend_update_step = BaseOptimizer._backend_update_step
    try:
        yield
    finally:
        TFOptimizer._backend_update_step = original


def _update_small(optimizer: Any, gradients: list[Any], variables: list[Any], learning_rate: Any) -> list[int]:
    """Update small variables as one, in their place the optimizer's slots too; return the places of the others."""
    everywhere = list(range(len(variables)))
    if type(optimizer) not in _ELEMENTWISE or "update_step" in vars(optimizer):
        return everywhere
    small = [
        place
        for place in everywhere
        if is_small(gradients[place]) and gradients[place].dtype == tf.float32 and variables[place].dtype == "float32"
    ]
    if len(small) < 2:
        return everywhere
    indices = [optimizer._get_variable_index(variables[place]) for place in small]
    slots = {
        attribute: held
        for attribute, held in vars(optimizer).items()
        if attribute not in _NO_SLOTS and _holds_slots(held, len(optimizer._trainable_variables))
    }
    together = {attribute: Together([held[index] for index in indices]) for attribute, held in slots.items()}
    whole = Together([variables[place] for place in small])
    vars(optimizer).update({attribute: [each] for attribute, each in together.items()})
    optimizer._get_variable_index = lambda _: 0
    try:
        optimizer.update_step(flat([gradients[place] for place in small]), whole, learning_rate)
    finally:
        vars(optimizer).update(slots)
        del vars(optimizer)["_get_variable_index"]
    for each in (whole, *together.values()):
        each.write_back()
    return [place for place in everywhere if place not in small]


def _holds_slots(held: Any, count: int) -> bool:
    # TensorFlow keeps its bookkeeping in lists on the same object, which may happen to be as long.
    return isinstance(held, list) and len(held) == count and all(isinstance(each, keras.Variable) for each in held)


_NO_SLOTS = ("_variables", "_trainable_variables", "_accumulated_gradients", "_model_variables_moving_average")


def scale_updates(optimizer: keras.Optimizer, factors: Sequence[tuple[keras.Variable, float]]) -> None:
    """Let an optimizer take its steps for some variables at a multiple of its learning rate, their decay with them.

    Every optimizer of Keras computes an update in `update_step(gradient, variable, learning_rate)`, and decays weights
    in `_apply_weight_decay(variables)` at its own rate (optimizers/base_optimizer.py). Variables reach both as Keras'
    or as TensorFlow's, so they are told apart by the optimizer's own index.
    """
    of_index = {optimizer._get_variable_index(variable): factor for variable, factor in factors if factor != 1.0}
    update, decay, usual = optimizer.update_step, optimizer._apply_weight_decay, optimizer.weight_decay

    def factor_of(variable: Any) -> float:
        return of_index.get(optimizer._get_variable_index(variable), 1.0)

    def update_step(gradient: Any, variable: Any, learning_rate: Any) -> None:
        factor = factor_of(variable)
        update(gradient, variable, learning_rate if factor == 1.0 else learning_rate * factor)

    def apply_weight_decay(variables: Sequence[Any]) -> None:
        if usual is None:
            return
        try:
            for factor in dict.fromkeys(map(factor_of, variables)):
                optimizer.weight_decay = usual * factor
                decay([variable for variable in variables if factor_of(variable) == factor])
        finally:
            optimizer.weight_decay = usual

    optimizer.update_step, optimizer._apply_weight_decay = update_step, apply_weight_decay


@contextmanager
def as_one_device() -> Iterator[None]:
    """While steps are traced, let every replica compute its part of what one device would.

    Random layers draw from a stream of the replica's own. Losses and the batch statistics that are synchronised are
    those of the step's examples on all replicas, however unequal the shares; see `trainer.replicas.part.tracing`.
    Gradients of losses that are weighted later are weighted on their way into an optimizer.
    """
    before = [(place, name, getattr(place, name)) for place, name in _PATCHED]
    try:
        keras.random.SeedGenerator.next = _of_replica(keras.random.SeedGenerator.next)
        loss_module.scale_loss_for_distribution = _scaled(loss_module.scale_loss_for_distribution)
        loss_module.unscale_loss_for_distribution = _unscaled(loss_module.unscale_loss_for_distribution)
        loss_module.reduce_weighted_values = _reduced(loss_module.reduce_weighted_values)
        nn_module._compute_moments_sync = _moments
        keras.metrics.Mean.update_state = _counted(keras.metrics.Mean.update_state)
        BaseOptimizer.apply = _applied(BaseOptimizer.apply)
        keras.optimizers.LossScaleOptimizer.apply = _applied(keras.optimizers.LossScaleOptimizer.apply)
        keras.layers.BatchNormalization._moments = _masked_moments(keras.layers.BatchNormalization._moments)
        with _losses_of_each_thread():
            yield
    finally:
        for place, name, original in before:
            setattr(place, name, original)


_PATCHED = (
    (keras.random.SeedGenerator, "next"),
    (loss_module, "scale_loss_for_distribution"),
    (loss_module, "unscale_loss_for_distribution"),
    (loss_module, "reduce_weighted_values"),
    (nn_module, "_compute_moments_sync"),
    (keras.metrics.Mean, "update_state"),
    (BaseOptimizer, "apply"),
    (keras.optimizers.LossScaleOptimizer, "apply"),
    (keras.layers.BatchNormalization, "_moments"),
)


@contextmanager
def _losses_of_each_thread() -> Iterator[None]:
    """Keep what layers add to the loss apart by thread, which is by replica, since replicas share the layers.

    A replica that asks the others for something, batch statistics or a sum of weights, waits for them between its
    forward pass and its loss; what they add, and clear, meanwhile would be its own.
    """
    held = _Losses()

    def of_thread(layer: keras.Layer) -> list[Any]:
        return held.by_layer.setdefault(id(layer), [])

    def assign(layer: keras.Layer, losses: list[Any]) -> None:
        held.by_layer[id(layer)] = losses

    keras.Layer._losses = property(of_thread, assign)  # before any layer's own attribute
    try:
        yield
    finally:
        del keras.Layer._losses


class _Losses(threading.local):
    """What layers add to the loss in a thread."""

    def __init__(self) -> None:
        self.by_layer: dict[int, list[Any]] = {}


def _of_replica(drawn: Any) -> Any:
    """Give every replica random numbers of its own from each seed generator.

    Each replica steps an identical copy of a generator's state, so the states stay equal and are saved once; what
    is drawn comes from the state and the replica's number. Replica 0 draws what one device would.
    """

    def draw(generator: keras.random.SeedGenerator, ordered: bool = True) -> Any:
        seed = drawn(generator, ordered)
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return seed
        shift = tf.cast(context.replica_id_in_sync_group, tf.int64) * _STREAM % 2**32
        return seed + tf.stack([tf.cast(shift, seed.dtype), tf.zeros((), seed.dtype)])

    return draw


def _scaled(original: Any) -> Any:
    """Weight a mean over a replica's examples by its part of the step; Keras divides by the number of replicas."""

    def scale(value: Any) -> Any:
        traced = part.current()
        return original(value) if traced is None else part.times(value, traced.scale)

    return scale


def _unscaled(original: Any) -> Any:
    """Undo `_scaled`, for the metrics of losses: they are weighted by examples."""

    def unscale(value: Any) -> Any:
        traced = part.current()
        return original(value) if traced is None else part.times(value, 1 / traced.scale)

    return unscale


def _reduced(original: Any) -> Any:
    """Make a replica's part of the loss over all examples of a step, for each of Keras' reductions."""

    def reduce(
        values: Any, sample_weight: Any = None, mask: Any = None, reduction: Any = "mean", dtype: Any = None
    ) -> Any:
        traced = part.current()
        if traced is None:
            return original(values, sample_weight, mask, reduction, dtype)
        if reduction in (None, "none"):
            raise NameplateError(
                "a loss with reduction=None gives a number an example, and a step is trained by one number; "
                'give the loss reduction="sum_over_batch_size"'
            )
        loss = original(values, sample_weight, mask, reduction, dtype)
        if reduction == "sum":
            return part.times(loss, traced.scale_of_sum)
        if len(values.shape) == 0 and sample_weight is None and mask is None:
            return part.times(loss, traced.scale)  # reduced by the loss itself: a mean, as far as we know
        own = _divisor(sample_weight, mask, reduction, loss.dtype)
        if own is None:
            return loss
        # Keras has divided by what this replica's examples weigh; their number weights the mean, here or later.
        return loss * tf.math.divide_no_nan(own, part.times(part.sum_over_replicas(own), traced.weight))

    return reduce


def _counted(original: Any) -> Any:
    """Weight the losses of several outputs by examples, which CompileLoss counts only where shapes are static."""

    def update_state(metric: keras.metrics.Metric, values: Any, sample_weight: Any = None) -> Any:
        examples = part.examples_behind(metric)
        return original(metric, values, sample_weight if examples is None else examples)

    return update_state


def _applied(original: Any) -> Any:
    """Weight the gradients of means over the replicas' shares, and add them up where the optimizer does not itself."""

    def apply(optimizer: keras.Optimizer, grads: Any, trainable_variables: Any = None) -> Any:
        traced = part.current()
        if traced is None or not traced.later:
            return original(optimizer, grads, trainable_variables)
        grads = [part.counted_once(part.weighted(each, traced), traced) for each in grads]
        if "_backend_update_step" in vars(getattr(optimizer, "inner_optimizer", optimizer)):  # see `update_locally`
            grads = part.added_up(grads)
        with part.tracing(None):  # an optimizer inside this one gets what is weighted already
            return original(optimizer, grads, trainable_variables)

    return apply


def _divisor(sample_weight: Any, mask: Any, reduction: str, dtype: Any) -> tf.Tensor | None:
    """Return what a weighted or masked mean was divided by; None where it is the number of examples."""
    if reduction == "mean_with_sample_weight":
        weights = loss_module.apply_mask(
            None if sample_weight is None else tf.cast(sample_weight, dtype), mask, dtype=dtype, reduction=reduction
        )
    else:
        weights = mask
    return None if weights is None else tf.stop_gradient(tf.reduce_sum(tf.cast(weights, dtype)))


def _moments(x: Any, axes: Sequence[int], keepdims: bool) -> tuple[Any, Any]:
    mean, variance = moments(x, axes)
    return (mean, variance) if keepdims else (tf.squeeze(mean, axes), tf.squeeze(variance, axes))


def _masked_moments(original: Any) -> Any:
    """Synchronise the statistics of masked values too, which Keras takes over each replica's share."""

    def of_layer(layer: keras.layers.BatchNormalization, inputs: Any, mask: Any) -> tuple[Any, Any]:
        if mask is None or not layer.synchronized:
            return original(layer, inputs, mask)
        axes = layer._reduction_axes
        counting = tf.broadcast_to(tf.cast(mask, inputs.dtype)[..., None], tf.shape(inputs))
        mean, variance = moments(inputs, axes, mask=counting)
        return tf.squeeze(mean, axes), tf.squeeze(variance, axes)

    return of_layer


def multi_worker(addresses: Sequence[str], index: int, *, devices: int, gpu: bool) -> tf.distribute.Strategy:
    """Return TensorFlow's strategy over several processes, with so many GPUs or logical CPU devices in this one.

    TensorFlow gives a worker without GPUs one replica, however many logical devices its CPU is divided into.
    """
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(addresses)}),
        task_type="worker",
        task_id=index,
        num_accelerators={"GPU": devices if gpu else 0},
        rpc_layer="grpc",
    )
    extended = collective_strategy.CollectiveAllReduceExtended
    original = extended._initialize_local_devices
    kind = "GPU" if gpu else "CPU"

    def of_this_worker(strategy: Any, resolver: Any, worker_device: str) -> tuple[tuple[str, ...], str]:
        return tuple(f"{worker_device}/device:{kind}:{number}" for number in range(devices)), kind

    extended._initialize_local_devices = of_this_worker
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    finally:
        extended._initialize_local_devices = original


def inner_optimizer(optimizer: keras.Optimizer) -> keras.Optimizer:
    """Return the optimizer that holds the slots: the one inside a LossScaleOptimizer, or itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def takes_training(model: keras.Model) -> bool:
    """Say whether the model's `call` has an argument `training`."""
    return bool(model._call_has_training_arg)


def built_for(optimizer: keras.Optimizer) -> list[keras.Variable]:
    """Return the variables that an optimizer was built for, in its order."""
    return list(optimizer._trainable_variables)


class Enough(BaseException):  # no error, and it must pass `except Exception` on its way out of a model
    """All outputs that were wanted are there."""


@contextmanager
def capturing(layers: Mapping[str, Any], *, stop: bool) -> Iterator[dict[str, Any]]:
    """Inside, a layer's first call leaves its output under its key; with `stop` the last of them ends the block.

    `Operation.__call__` (ops/operation.py) runs the attribute `call`, or `quantized_call` of a quantized layer; it is
    shadowed on the instance until the block ends.
    """
    found: dict[str, Any] = {}
    shadowed = []
    try:
        for name, layer in layers.items():
            for method in ("call", "quantized_call"):
                if hasattr(layer, method):
                    shadowed.append((layer, method, layer.__dict__.get(method)))
                    layer.__dict__[method] = _kept(getattr(layer, method), name, found, len(layers) if stop else None)
        with contextlib.suppress(Enough):
            yield found
    finally:
        for layer, method, before in reversed(shadowed):
            layer.__dict__.pop(method)
            if before is not None:
                layer.__dict__[method] = before


def _kept(call: Any, name: str, found: dict[str, Any], enough: int | None) -> Any:
    @functools.wraps(call)
    def keep(*arguments: Any, **keywords: Any) -> Any:
        output = call(*arguments, **keywords)
        found.setdefault(name, output)
        if len(found) == enough:
            raise Enough
        return output

    return keep


@contextmanager
def any_size(graphs: Sequence[Any]) -> Iterator[None]:
    """Inside, models do not compare their inputs' sizes with those they were built for; their layers still do.

    `Layer._assert_input_compatibility` (layers/layer.py, models/functional.py).
    """
    for graph in graphs:
        graph.__dict__["_assert_input_compatibility"] = lambda *_: None
    try:
        yield
    finally:
        for graph in graphs:
            graph.__dict__.pop("_assert_input_compatibility", None)


def idle_hooks(callback: keras.callbacks.Callback) -> list[Any]:
    """Return the batch hooks of Keras' own callbacks that do nothing as this one of them is set (callbacks/*.py).

    The loop looks for NaN itself, at every step.
    """
    its = keras.callbacks
    match callback:
        case its.ModelCheckpoint() | its.BackupAndRestore() if callback.save_freq == "epoch":
            return [its.ModelCheckpoint.on_train_batch_end, its.BackupAndRestore.on_train_batch_end]
        case its.TensorBoard() if callback.update_freq == "epoch" and not callback._should_trace:
            if not callback.write_steps_per_second:
                return [
                    its.TensorBoard.on_train_batch_begin,
                    its.TensorBoard.on_train_batch_end,
                    its.TensorBoard.on_test_batch_begin,
                ]
        case its.TerminateOnNaN():
            return [its.TerminateOnNaN.on_batch_end]
    return []


def logits(output: Any) -> Any:
    """Return what a softmax or sigmoid made a tensor from (`_keras_logits`, backend/tensorflow/nn.py), or itself."""
    return getattr(output, "_keras_logits", output)
