"""What one replica does in one step: forward, backward, its own update, its own metrics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from models.tree import layers
from trainer.data.batches import Share
from trainer.data.source import leaves
from trainer.replicas.class_weights import weighted_by_class
from trainer.replicas.part import Part, counted_once, counting, times, tracing
from trainer.replicas.private.compiled import (
    compute_loss,
    loss_tracker,
    masks,
    output_trackers,
    overridden,
    set_masks,
    takes_training,
    unpack,
)
from trainer.replicas.sums import CrossesReplicasError, added_up, keeping
from trainer.workers.exchange import number_of_this_replica


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images, on the device that trains on them."""

    layers: keras.Model
    inputs: tuple[str, ...]  # names of the inputs that are images, where x is a dict

    def __call__(self, x: Any) -> Any:
        """Return x with each image changed in its own way."""
        if not isinstance(x, dict):
            return self.layers(x, training=True)
        return {name: self.layers(each, training=True) if name in self.inputs else each for name, each in x.items()}


@dataclass(frozen=True)
class Step:
    """The computation of a replica for a compiled model; its methods are called in replica context."""

    model: keras.Model
    augmentation: Augmentation | None = None  # applied to x in training
    class_weights: tf.Tensor | None = None  # (classes,) in floatx; the last is for all other labels
    xla: bool = False  # compile forward and backward

    @property
    def is_users(self) -> bool:
        """Say whether the model brings its own `train_step`, which then does all of it."""
        return overridden(self.model, "train_step")

    def uncompiled(self) -> str | None:
        """Return why `xla` does not compile the passes, where it was asked for and cannot."""
        if self.xla and self.is_users:
            return "xla: not compiled, the model brings a train_step of its own"
        crosses = self.xla and crosses_replicas(self.model)
        return (
            "xla: not compiled, batch statistics cross the replicas; sync_batch_norm=False compiles"
            if crosses
            else None
        )

    def train(self, examples: Any, shares: list[Share]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Update the replica's copies by its share of a step; return its part of the loss, and of what else is told.

        The parts of all replicas add up to the loss over the step's examples, however unequal the shares. So do the
        gradients, which are summed over the replicas before the update. A model's own `train_step` may tell more.
        """
        with keeping(self._of_the_user()):
            return self._trained(self._prepared(examples), share_of_this_replica(shares))

    def _trained(self, examples: Any, share: Share) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        if self.is_users:
            return self._users_train_step(examples, share)
        x, y, weight = unpack(examples)
        predicted, loss, gradients = self._passes(x, y, weight, share)
        gradients = added_up([counted_once(gradient, _part(share)) for gradient in gradients])
        self.model.optimizer.apply(gradients, self.model.trainable_variables)
        if share.counts:
            self._measure(x, y, weight, predicted, times(loss, 1 / share.part), share)
        return tf.cast(loss, tf.float32), {}

    def evaluate(self, examples: Any, shares: list[Share]) -> None:
        """Add the replica's share to the metrics."""
        share = share_of_this_replica(shares)
        if overridden(self.model, "test_step"):
            with keeping(self._of_the_user()), self._whole_step(share):
                self.model.test_step(examples)
            return
        x, y, weight = unpack(examples)
        with keeping(self._of_the_user()):
            predicted = self._call(x, training=False)
            loss = self._loss(x, y, predicted, weight, share, training=False)
        if share.counts:
            self._measure(x, y, weight, predicted, times(loss, 1 / share.part), share)

    def predict(self, examples: Any) -> Any:
        """Return what the model makes of the replica's share."""
        if overridden(self.model, "predict_step"):
            return self.model.predict_step(examples)
        x, _, _ = unpack(examples)
        return self._call(x, training=False)

    def _of_the_user(self) -> list[keras.Layer]:
        """Return the layers, the model among them, whose classes are not Keras' own: those may keep anything."""
        every = [self.model, *layers(self.model).values()]
        return [layer for layer in every if not type(layer).__module__.startswith("keras.")]

    def _prepared(self, examples: Any) -> Any:
        """Return the examples as they are trained on, in the structure that Keras gives to a `train_step`."""
        if self.augmentation is not None:
            x, *rest = examples
            examples = (self.augmentation(x), *rest)
        if self.class_weights is not None:
            x, y, weight = unpack(examples)
            (labels,), held = leaves(y), (leaves(weight) or [None])[0]
            examples = (x, y, weighted_by_class(labels, held, self.class_weights, rank=_output_rank(self.model)))
        return examples

    def _call(self, x: Any, *, training: bool) -> Any:
        return self.model(x, training=training) if takes_training(self.model) else self.model(x)

    def _users_train_step(self, examples: Any, share: Share) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Leave the step to the model; what it hands to an optimizer is weighted by the replica's examples there."""
        with self._whole_step(share):
            logs = self.model.train_step(examples)
        parts = {name: times(each, share.part) for name, each in _flat_logs(logs)}
        return parts.get("loss", tf.zeros(())), parts

    @contextmanager
    def _whole_step(self, share: Share) -> Iterator[None]:
        """Trace a step of the user's own, in which the metrics are updated too, by what counts."""
        metrics = [] if share.counts else [variable for metric in self.model.metrics for variable in metric.variables]
        trackers = output_trackers(self.model)
        with tracing(_part(share, later=True)), _unchanged(metrics), counting(share.length, trackers):
            yield

    def _passes(self, x: Any, y: Any, weight: Any, share: Share) -> tuple[Any, tf.Tensor, list[Any]]:
        """Go forward and backward, compiled where that is asked for and possible."""
        if self.xla and not crosses_replicas(self.model):
            try:
                return self._compiled_passes(x, y, weight, share)
            except CrossesReplicasError:
                pass  # a masked or weighted mean, whose divisor is counted over all replicas
        return self._forward_backward(x, y, weight, share)

    def _compiled_passes(self, x: Any, y: Any, weight: Any, share: Share) -> tuple[Any, tf.Tensor, list[Any]]:
        def passes(x: Any, y: Any, weight: Any) -> tuple[Any, ...]:
            predicted, loss, gradients = self._forward_backward(x, y, weight, share, compiled=True)
            return predicted, loss, gradients, masks(predicted)

        predicted, loss, gradients, held = tf.function(passes, jit_compile=True, autograph=False)(x, y, weight)
        set_masks(predicted, held)
        return predicted, loss, gradients

    def _forward_backward(
        self, x: Any, y: Any, weight: Any, share: Share, *, compiled: bool = False
    ) -> tuple[Any, tf.Tensor, list[Any]]:
        with tf.GradientTape() as tape:
            with tracing(_part(share, compiled=compiled)):
                predicted = self._call(x, training=True)
            loss = self._loss(x, y, predicted, weight, share, training=True, compiled=compiled)
            scaled = self.model.optimizer.scale_loss(loss)
        return predicted, loss, tape.gradient(scaled, self.model.trainable_variables)

    def _loss(
        self, x: Any, y: Any, predicted: Any, weight: Any, share: Share, *, training: bool, compiled: bool = False
    ) -> tf.Tensor:
        """Return the replica's part of the loss; what a `compute_loss` of the user's returns is taken as a mean."""
        users = overridden(self.model, "compute_loss")
        trackers = output_trackers(self.model)
        uncounted = [] if share.counts else [variable for tracker in trackers for variable in tracker.variables]
        part = _part(share, later=users, compiled=compiled)
        with tracing(part), _unchanged(uncounted), counting(share.length, trackers):
            loss = compute_loss(self.model, x, y, predicted, weight, training=training)
        return times(loss, share.part) if users else loss

    def _measure(self, x: Any, y: Any, weight: Any, predicted: Any, loss: tf.Tensor, share: Share) -> None:
        loss_tracker(self.model).update_state(loss, sample_weight=share.length)
        with tracing(_part(share)):
            self.model.compute_metrics(x, y, predicted, sample_weight=weight)


def crosses_replicas(model: keras.Model) -> bool:
    """Say whether a forward pass asks the other replicas: batch statistics over all of them, which XLA cannot hold."""
    replicated = tf.distribute.get_strategy().num_replicas_in_sync > 1
    return replicated and any(getattr(layer, "synchronized", False) for layer in layers(model).values())


def share_of_this_replica(shares: list[Share]) -> Share:
    """Return the share of the replica that is being traced."""
    return shares[number_of_this_replica()]


def _output_rank(model: keras.Model) -> int | None:
    """Return the rank of a model's only output; None where its graph does not tell."""
    outputs = getattr(model, "outputs", None)
    return len(outputs[0].shape) if isinstance(outputs, list) and len(outputs) == 1 else None


def _part(share: Share, *, later: bool = False, compiled: bool = False) -> Part:
    """Return how a share's losses count: at once, or later when what a user's method makes of them is weighted."""
    return Part(share.part, share.copies, share.counts, compiled=compiled, later=later, share=share)


@contextmanager
def _unchanged(variables: list[keras.Variable]) -> Iterator[None]:
    """Give variables the values back that they had before."""
    held = [tf.identity(variable.value) for variable in variables]
    yield
    for variable, value in zip(variables, held, strict=True):
        variable.assign(value)


def _flat_logs(logs: Any) -> Iterator[tuple[str, tf.Tensor]]:
    """Yield what a model's own `train_step` says, as scalars by name: Keras keeps compiled metrics in a dict inside."""
    for name, value in logs.items() if isinstance(logs, dict) else ():
        if isinstance(value, dict):
            yield from _flat_logs(value)
        else:
            yield name, tf.reduce_mean(tf.cast(value, tf.float32))
