"""While steps are traced, every replica computes its part of what one device would."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.tensorflow import nn as nn_module
from keras.src.losses import loss as loss_module
from keras.src.optimizers.base_optimizer import BaseOptimizer

from nameplate.engine import collectives, loss_scaling, scalars
from nameplate.engine.private.optimizers import updating_locally
from nameplate.engine.statistics import moments
from nameplate.errors import NameplateError

# Odd, so that multiples of it visit every 32-bit number before one returns (Knuth, multiplicative hashing).
_STREAM = 0x9E3779B1


@contextmanager
def as_one_device() -> Iterator[None]:
    """While steps are traced, let every replica compute its part of what one device would.

    Random layers draw from a stream of the replica's own. Losses and the batch statistics that are synchronised are
    those of the step's examples on all replicas, however unequal the shares; see `loss_scaling.tracing`.
    Gradients of losses that are weighted later are weighted on their way into an optimizer.
    """
    before = []
    try:
        for place, name, changed in _PATCHES:
            original = getattr(place, name)
            before.append((place, name, original))
            setattr(place, name, changed(original))
        with _losses_of_each_thread(), updating_locally():
            yield
    finally:
        for place, name, original in reversed(before):
            setattr(place, name, original)


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
        vars(layer).setdefault("_losses", [])  # of one that is made here: it has its own afterwards

    around = vars(keras.Layer).get("_losses")
    keras.Layer._losses = property(of_thread, assign)  # before any layer's own attribute
    try:
        yield
    finally:
        if around is None:
            del keras.Layer._losses
        else:
            keras.Layer._losses = around


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
        traced = loss_scaling.current()
        return original(value) if traced is None else loss_scaling.times(value, traced.scale)

    return scale


def _unscaled(original: Any) -> Any:
    """Undo `_scaled`, for the metrics of losses: they are weighted by examples."""

    def unscale(value: Any) -> Any:
        traced = loss_scaling.current()
        return original(value) if traced is None else loss_scaling.times(value, 1 / traced.scale)

    return unscale


def _reduced(original: Any) -> Any:
    """Make a replica's part of the loss over all examples of a step, for each of Keras' reductions."""

    def reduce(
        values: Any, sample_weight: Any = None, mask: Any = None, reduction: Any = "mean", dtype: Any = None
    ) -> Any:
        traced = loss_scaling.current()
        if traced is None:
            return original(values, sample_weight, mask, reduction, dtype)
        if reduction in (None, "none"):
            raise NameplateError(
                "a loss with reduction=None gives a number an example, and a step is trained by one number; "
                'give the loss reduction="sum_over_batch_size"'
            )
        loss = original(values, sample_weight, mask, reduction, dtype)
        if reduction == "sum":
            return loss_scaling.times(loss, traced.scale_of_sum)
        if len(values.shape) == 0 and sample_weight is None and mask is None:
            return loss_scaling.times(loss, traced.scale)  # reduced by the loss itself: a mean, as far as we know
        own = _divisor(sample_weight, mask, reduction, loss.dtype)
        if own is None:
            return loss
        # Keras has divided by what this replica's examples weigh; their number weights the mean, here or later.
        return loss * tf.math.divide_no_nan(own, loss_scaling.times(collectives.sum_over_replicas(own), traced.weight))

    return reduce


def _counted(original: Any) -> Any:
    """Weight means over shares by examples: the losses of several outputs, and numbers that user code counts.

    CompileLoss counts the examples behind a loss only where shapes are static.
    """

    def update_state(metric: keras.metrics.Metric, values: Any, sample_weight: Any = None) -> Any:
        traced, examples = loss_scaling.current(), loss_scaling.examples_behind(metric)
        if examples is not None:
            return original(metric, values, examples)
        if sample_weight is None and traced is not None and not traced.alone and _is_number(values):
            scalars.require_known()
            sample_weight = traced.weight * traced.copies  # a number for the share: its part of one for the step
        return original(metric, values, sample_weight)

    return update_state


def _summed(original: Any) -> Any:
    """Let a number that user code adds up be tried: of a mean over a share it would make too much."""

    def update_state(metric: keras.metrics.Metric, values: Any, sample_weight: Any = None) -> Any:
        traced = loss_scaling.current()
        if traced is not None and not traced.alone and _is_number(values):
            scalars.require_known()
        return original(metric, values, sample_weight)

    return update_state


def _is_number(value: Any) -> bool:
    return len(getattr(value, "shape", ())) == 0


def _added(original: Any) -> Any:
    """Let losses that layers add enter the step's as what they are, means or sums over the share's examples."""

    def add_loss(layer: keras.Layer, loss: Any) -> Any:
        walk = scalars.walk()
        if walk is None:
            return original(layer, loss)
        return original(
            layer, [walk.added(layer, each) if tf.is_tensor(each) else each for each in tf.nest.flatten(loss)]
        )

    return add_loss


def _applied(original: Any) -> Any:
    """Weight the gradients of means over the replicas' shares, and add them up: any optimizer gets those of the step.

    So it clips, accumulates and averages after the sum, as one device does, one of the model's own too.
    """

    def apply(optimizer: keras.Optimizer, grads: Any, trainable_variables: Any = None) -> Any:
        traced = loss_scaling.current()
        if traced is None or not traced.later:
            return original(optimizer, grads, trainable_variables)
        walk = scalars.walk()
        weight = traced.weight if walk is None else scalars.weight_of(walk.gradients_kind(), traced)
        of = optimizer._trainable_variables if trainable_variables is None else list(trainable_variables)
        grads = [
            gradient
            if collectives.is_overwritten(variable)
            else loss_scaling.counted_once(loss_scaling.weighted(gradient, weight), traced)
            for gradient, variable in zip(grads, of, strict=True)
        ]
        grads = collectives.added_up(grads, of)
        with loss_scaling.tracing(None):  # an optimizer inside this one gets what is weighted already
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


_PATCHES: tuple[tuple[Any, str, Callable[[Any], Any]], ...] = (
    (keras.random.SeedGenerator, "next", _of_replica),
    (loss_module, "scale_loss_for_distribution", _scaled),
    (loss_module, "unscale_loss_for_distribution", _unscaled),
    (loss_module, "reduce_weighted_values", _reduced),
    (nn_module, "_compute_moments_sync", lambda _: _moments),
    (keras.metrics.Mean, "update_state", _counted),
    (keras.metrics.Sum, "update_state", _summed),
    (keras.Layer, "add_loss", _added),
    (BaseOptimizer, "apply", _applied),
    (keras.optimizers.LossScaleOptimizer, "apply", _applied),
    (keras.optimizers.MultiOptimizer, "apply", _applied),
    (keras.layers.BatchNormalization, "_moments", _masked_moments),
)
