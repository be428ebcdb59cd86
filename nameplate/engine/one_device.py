"""While steps are traced, every replica computes its part of what one device would: the hooks in Keras that do this.

Each hook is a few lines between Keras and the module that knows the answer: `loss_scaling` (by which factor),
`reductions` (is a number a mean or a sum), `collectives` (what the other replicas have), `statistics` (batch moments).
Outside of `loss_scaling.scaling`, and outside of a replica, each hook does what Keras does.

A loss goes through them in this order: `reduce_weighted_values` reduces the values of the examples to a mean, inside of
which `scale_loss_for_distribution` scales it; `add_loss` takes what layers add, to be scaled likewise by Keras when it
sums up the losses; `unscale_loss_for_distribution` gives back the mean for the metrics of single outputs; and
`apply` of an optimizer sums gradients over the replicas where the tape is a user's own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from nameplate.engine import collectives, private
from nameplate.engine.local_updates import updating_locally
from nameplate.engine.loss_scaling import Reduction, current_scale, examples_behind, scaling
from nameplate.engine.reductions import current_pass, require_tried
from nameplate.engine.statistics import moments
from nameplate.errors import NameplateError

# Odd, so that multiples of it visit every 32-bit number before one returns (Knuth, multiplicative hashing).
_STREAM = 0x9E3779B1


@contextmanager
def as_one_device() -> Iterator[None]:
    """While steps are traced, let every replica compute its part of what one device would.

    Random layers draw from a stream of the replica's own. Losses and the synchronised batch statistics are those of
    the step's examples on all replicas, however unequal the shares. Optimizers update each replica's own copies.
    """
    hooks = ((owner, name, hook(getattr(owner, name))) for (owner, name), hook in _HOOKS)
    with private.patched(hooks), _losses_by_thread(), updating_locally():
        yield


@contextmanager
def _losses_by_thread() -> Iterator[None]:
    """Keep what layers add to the loss apart by thread, which is by replica, since the replicas share the layers.

    A replica that asks the others for something, batch statistics or a sum of weights, waits for them between its
    forward pass and its loss. Without this, what the others add and clear meanwhile would be its own.
    """
    losses = _Losses()

    def of_thread(layer: keras.Layer) -> list[Any]:
        return losses.by_layer.setdefault(id(layer), [])

    def assign(layer: keras.Layer, assigned: list[Any]) -> None:
        losses.by_layer[id(layer)] = assigned

    with private.layer_losses(of_thread, assign):
        yield


class _Losses(threading.local):
    """What layers add to the loss in a thread."""

    def __init__(self) -> None:
        self.by_layer: dict[int, list[Any]] = {}


def _seed_of_replica(original: Any) -> Any:
    """Give every replica random numbers of its own from each seed generator.

    Each replica advances an identical copy of a generator's state, so that the states stay equal and are saved once;
    what is drawn follows from the state and the replica's number. Replica 0 draws what one device would.
    """

    def draw(generator: keras.random.SeedGenerator, ordered: bool = True) -> Any:
        seed = original(generator, ordered)
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return seed
        shift = tf.cast(context.replica_id_in_sync_group, tf.int64) * _STREAM % 2**32
        return seed + tf.stack([tf.cast(shift, seed.dtype), tf.zeros((), seed.dtype)])

    return draw


def _mean_scaled(original: Any) -> Any:
    """Scale a mean over the share by its part of the step; Keras would divide by the number of replicas."""

    def scale_loss(value: Any) -> Any:
        scale = current_scale()
        return original(value) if scale is None else scale.of_mean(value)

    return scale_loss


def _mean_unscaled(original: Any) -> Any:
    """Give back the mean over the share, for the metrics of single losses; Keras would multiply by the replicas."""

    def unscale_loss(value: Any) -> Any:
        scale = current_scale()
        return original(value) if scale is None else scale.unscaled(value)

    return unscale_loss


def _reduced(original: Any) -> Any:
    """Reduce the losses of the examples to the replica's part of the step's loss, for each of Keras' reductions."""

    def reduce(
        values: Any, sample_weight: Any = None, mask: Any = None, reduction: Any = "mean", dtype: Any = None
    ) -> Any:
        scale = current_scale()
        if scale is None:
            return original(values, sample_weight, mask, reduction, dtype)
        if reduction in (None, "none"):
            raise NameplateError(
                "a loss with reduction=None gives a number an example, but a step is trained by a single number; "
                'give the loss reduction="sum_over_batch_size"'
            )
        if not hasattr(values, "shape"):  # a plain number of a user's loss
            values = tf.convert_to_tensor(values, keras.config.floatx())
        loss = original(values, sample_weight, mask, reduction, dtype)  # a mean is scaled in there, a sum is not
        if reduction == "sum":
            return scale.of_sum(loss)
        if len(values.shape) == 0 and sample_weight is None and mask is None:
            # The loss has reduced itself, to a mean as far as we know, and Keras does not scale a single number.
            return scale.of_mean(loss)
        own = _sum_of_weights(sample_weight, mask, reduction, loss.dtype)
        return loss if own is None else scale.of_weighted_mean(loss, own, collectives.sum_over_replicas(own))

    return reduce


def _sum_of_weights(sample_weight: Any, mask: Any, reduction: str, dtype: Any) -> tf.Tensor | None:
    """Return what Keras divided a weighted or masked mean by; None where it is the number of examples."""
    if reduction == "mean_with_sample_weight":
        given = None if sample_weight is None else tf.cast(sample_weight, dtype)
        weights = private.apply_mask(given, mask, dtype=dtype, reduction=reduction)
    else:
        weights = mask
    return None if weights is None else tf.stop_gradient(tf.reduce_sum(tf.cast(weights, dtype)))


def _mean_counted(original: Any) -> Any:
    """Weight means over shares by examples: the losses of several outputs, and numbers that a user's code averages.

    CompileLoss weights the losses of several outputs itself, but only where the shapes are static.
    """

    def update_state(metric: keras.metrics.Metric, values: Any, sample_weight: Any = None) -> Any:
        examples = examples_behind(metric)
        if examples is not None:
            return original(metric, values, examples)
        if sample_weight is None and _is_number_of_share(values):
            require_tried()
            share = current_scale().share  # type: ignore[union-attr]
            sample_weight = share.part * share.copies  # one for the step, over all replicas
        return original(metric, values, sample_weight)

    return update_state


def _sum_tried(original: Any) -> Any:
    """Let a number that a user's code adds up be tried: the sum of means over shares would be too large."""

    def update_state(metric: keras.metrics.Metric, values: Any, sample_weight: Any = None) -> Any:
        if _is_number_of_share(values):
            require_tried()
        return original(metric, values, sample_weight)

    return update_state


def _is_number_of_share(values: Any) -> bool:
    """Say whether a metric is updated with a single number that is made of the share's examples."""
    scale = current_scale()
    return scale is not None and not scale.alone and len(getattr(values, "shape", ())) == 0


def _loss_added(original: Any) -> Any:
    """Let losses that layers add enter the step's as what they are, means or sums over the share."""

    def add_loss(layer: keras.Layer, loss: Any) -> Any:
        step_pass = current_pass()
        if step_pass is None:
            return original(layer, loss)
        flat = tf.nest.flatten(loss)
        return original(layer, [step_pass.added_loss(layer, each) if tf.is_tensor(each) else each for each in flat])

    return add_loss


def _gradients_summed(original: Any) -> Any:
    """Scale gradients of deferred losses, and sum them over the replicas, before an optimizer gets them.

    So it clips, accumulates and averages the gradients of the whole step, as on one device; a user's own optimizer too.
    """

    def apply(optimizer: keras.Optimizer, grads: Any, trainable_variables: Any = None) -> Any:
        scale = current_scale()
        if scale is None or not scale.deferred:
            return original(optimizer, grads, trainable_variables)  # of our own step, which sums them itself
        step_pass = current_pass()
        reduction = Reduction.MEAN if step_pass is None else step_pass.gradients_reduction()
        variables = private.built_for(optimizer) if trainable_variables is None else list(trainable_variables)
        grads = [
            gradient if collectives.is_overwritten(variable) else scale.counted_once(scale.scaled(gradient, reduction))
            for gradient, variable in zip(grads, variables, strict=True)
        ]
        grads = collectives.sum_gradients(grads, variables)
        with scaling(None):  # an optimizer inside this one gets gradients that are scaled and summed already
            return original(optimizer, grads, trainable_variables)

    return apply


def _moments(x: Any, axes: Sequence[int], keepdims: bool) -> tuple[Any, Any]:
    mean, variance = moments(x, axes)
    return (mean, variance) if keepdims else (tf.squeeze(mean, axes), tf.squeeze(variance, axes))


def _masked_moments(original: Any) -> Any:
    """Synchronise the statistics of masked values too, which Keras takes over each replica's share."""

    def of_layer(layer: keras.layers.BatchNormalization, inputs: Any, mask: Any) -> tuple[Any, Any]:
        if mask is None or not layer.synchronized:
            return original(layer, inputs, mask)
        axes = private.reduction_axes(layer)
        mask = tf.broadcast_to(tf.cast(mask, inputs.dtype)[..., None], tf.shape(inputs))
        mean, variance = moments(inputs, axes, mask=mask)
        return tf.squeeze(mean, axes), tf.squeeze(variance, axes)

    return of_layer


_HOOKS: tuple[tuple[private.Place, Callable[[Any], Any]], ...] = (
    (private.NEXT_SEED, _seed_of_replica),
    (private.SCALE_LOSS, _mean_scaled),
    (private.UNSCALE_LOSS, _mean_unscaled),
    (private.REDUCE_LOSS, _reduced),
    (private.SYNCHRONISED_MOMENTS, lambda _: _moments),
    (private.UPDATE_MEAN, _mean_counted),
    (private.UPDATE_SUM, _sum_tried),
    (private.ADD_LOSS, _loss_added),
    *((place, _gradients_summed) for place in private.APPLY),
    (private.LAYER_MOMENTS, _masked_moments),
)
