"""What one replica does in one step: forward, backward, its own update, its own metrics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from nameplate.data.batches import Share
from nameplate.data.source import leaves
from nameplate.engine.class_weights import weighted_by_class
from nameplate.engine.collectives import CrossesReplicasError, added_up, keeping, over_several
from nameplate.engine.exchange import number_of_this_replica
from nameplate.engine.loss_scaling import Part, counted_once, counting, times, tracing
from nameplate.engine.private.compiled import (
    compute_loss,
    loss_tracker,
    masks,
    output_trackers,
    overridden,
    set_masks,
    takes_training,
    unpack,
)
from nameplate.engine.scalars import Kind, Scalars, UnknownScalarsError, Walk, require_known, walking, weight_of
from nameplate.engine.scalars import walk as current_walk
from nameplate.engine.trial import tried
from nameplate.engine.whole_batch import Result, result_behind
from nameplate.errors import NameplateError
from nameplate.graph.tree import layers

Logs = dict[str, tf.Tensor]  # what a step of the user's own tells, by name


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
    scalars: dict[bool, Scalars] = field(default_factory=dict)  # in training and not, once they have been tried
    results: dict[bool, dict[str, Result]] = field(default_factory=lambda: {True: {}, False: {}})  # told by name

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

    def train(self, examples: Any, shares: list[Share]) -> tuple[tf.Tensor, Logs]:
        """Update the replica's copies by its share of a step; return its part of the loss, and of what else is told.

        The parts of all replicas add up to the loss over the step's examples, however unequal the shares. So do the
        gradients, which are summed over the replicas before the update. A model's own methods may tell more.

        Raises:
            UnknownScalarsError: the model's own code makes numbers that have not been tried yet, see `try_out`.
        """
        share, examples = share_of_this_replica(shares), self._prepared(examples)
        with self._walked(examples, share, training=True):
            return self._trained(examples, share)

    def _trained(self, examples: Any, share: Share) -> tuple[tf.Tensor, Logs]:
        if self.is_users:
            require_known()
            with self._whole_step(share):
                logs = self.model.train_step(examples)
            parts = self._parts(logs, share, training=True)
            return _loss_of(logs, share), parts
        x, y, weight = unpack(examples)
        predicted, loss, gradients = self._passes(x, y, weight, share)
        variables = self.model.trainable_variables
        gradients = added_up([counted_once(gradient, _part(share)) for gradient in gradients], variables)
        self.model.optimizer.apply(gradients, variables)
        logs = self._measure(x, y, weight, predicted, times(loss, 1 / share.part), share)
        return tf.cast(loss, tf.float32), self._parts(logs, share, training=True)

    def evaluate(self, examples: Any, shares: list[Share]) -> Logs:
        """Add the replica's share to the metrics; return its part of what the model's own methods tell beside them.

        Raises:
            UnknownScalarsError: as `train`.
        """
        share = share_of_this_replica(shares)
        with self._walked(examples, share, training=False):
            if overridden(self.model, "test_step"):
                with self._whole_step(share):
                    logs = self.model.test_step(examples)
                return self._parts(logs, share, training=False)
            x, y, weight = unpack(examples)
            with tracing(_part(share)):
                predicted = self._call(x, training=False)
            loss = self._loss(x, y, predicted, weight, share, training=False)
            logs = self._measure(x, y, weight, predicted, times(loss, 1 / share.part), share)
            return self._parts(logs, share, training=False)

    def try_out(self, examples: Any, *, training: bool) -> None:
        """Find out what the numbers are that the model's own code makes of examples like these, outside of a graph.

        Raises:
            NameplateError: they can be neither means nor sums.
        """

        def once(examples: Any) -> tuple[Any, Logs]:
            if overridden(self.model, "train_step" if training else "test_step"):
                logs = self.model.train_step(examples) if training else self.model.test_step(examples)
                return None, self._numbers(logs)
            x, y, weight = unpack(examples)
            predicted, loss, logs = self._call(x, training=training), None, None
            if overridden(self.model, "compute_loss"):
                loss = compute_loss(self.model, x, y, predicted, weight, training=training)
            if overridden(self.model, "compute_metrics"):
                logs = self.model.compute_metrics(x, y, predicted, sample_weight=weight)
            return loss, self._numbers(logs)

        self.scalars[training] = tried(self.model, once, examples)

    @contextmanager
    def _walked(self, examples: Any, share: Share, *, training: bool) -> Iterator[None]:
        """Trace a step in which nothing is counted twice, and what the user's code keeps is the replica's own."""
        uncounted = [] if share.counts else [each for metric in self.model.metrics for each in metric.variables]
        with ExitStack() as stack:
            if over_several():
                stack.enter_context(walking(Walk(self.scalars.get(training))))
            stack.enter_context(keeping(self._of_the_user()))
            stack.enter_context(_unchanged(uncounted))
            try:
                yield
            except UnknownScalarsError as unknown:
                unknown.examples = tf.nest.map_structure(_like, examples)
                raise

    def _numbers(self, logs: Any) -> Logs:
        """Return what a step tells, by name, but for the results of metrics: those are read when it is over."""
        return {name: each for name, each in _flat_logs(logs) if result_behind(each) is None}

    def _parts(self, logs: Any, share: Share, *, training: bool) -> Logs:
        """Return the replica's part of each number that a step of the user's tells, and note the results of metrics."""
        parts: Logs = {}
        for name, value in _flat_logs(logs):
            source = result_behind(value)
            if source is not None:
                self.results[training][name] = source
                parts[name] = tf.zeros(())
            else:
                parts[name] = times(_as_float(value), weight_of(_log_kind(name), _part(share)))
        return parts

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

    @contextmanager
    def _whole_step(self, share: Share) -> Iterator[None]:
        """Trace a step of the user's own; what it hands to an optimizer is weighted by the replica's examples there."""
        with tracing(_part(share, later=True)), counting(share.length, output_trackers(self.model)):
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
        walk = current_walk()
        if walk is not None:
            walk.begin_pass()
        with tf.GradientTape() as tape:
            with tracing(_part(share, compiled=compiled)):
                predicted = self._call(x, training=True)
            loss = self._loss(x, y, predicted, weight, share, training=True, compiled=compiled)
            scaled = self.model.optimizer.scale_loss(loss)
        return predicted, loss, tape.gradient(scaled, self.model.trainable_variables)

    def _loss(
        self, x: Any, y: Any, predicted: Any, weight: Any, share: Share, *, training: bool, compiled: bool = False
    ) -> tf.Tensor:
        """Return the replica's part of the loss; what a `compute_loss` of the user's returns is what a trial says."""
        users = overridden(self.model, "compute_loss")
        part, walk = _part(share, later=users, compiled=compiled), current_walk()
        kind = walk.scalars().loss if users and walk is not None else Kind.MEAN
        with tracing(part), counting(share.length, output_trackers(self.model)):
            loss = compute_loss(self.model, x, y, predicted, weight, training=training)
        return times(loss, weight_of(kind, part)) if users else loss

    def _measure(self, x: Any, y: Any, weight: Any, predicted: Any, loss: tf.Tensor, share: Share) -> Any:
        """Update the metrics; return what a `compute_metrics` of the model's own tells."""
        loss_tracker(self.model).update_state(loss, sample_weight=share.length)
        with tracing(_part(share)):
            logs = self.model.compute_metrics(x, y, predicted, sample_weight=weight)
        return logs if overridden(self.model, "compute_metrics") else None


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


def _flat_logs(logs: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a step of the user's says, by name: Keras keeps compiled metrics in a dict inside."""
    for name, value in logs.items() if isinstance(logs, dict) else ():
        if isinstance(value, dict):
            yield from _flat_logs(value)
        elif value is not None:
            yield name, value


def _log_kind(name: str) -> Kind:
    walk = current_walk()
    if walk is None:
        return Kind.MEAN
    kinds = walk.scalars().logs
    if name not in kinds:
        raise NameplateError(f"the step returns {name!r}, which it did not when it was tried with random numbers")
    return kinds[name]


def _loss_of(logs: Any, share: Share) -> tf.Tensor:
    """Return the replica's part of the loss of a step of the user's own, zero where it tells none."""
    loss = dict(_flat_logs(logs)).get("loss")
    return tf.zeros(()) if loss is None else times(tf.reduce_mean(_as_float(loss)), share.part)


def _as_float(value: Any) -> tf.Tensor:
    return tf.cast(value, tf.float32)


def _like(leaf: Any) -> Any:
    return None if leaf is None else keras.KerasTensor((None, *leaf.shape[1:]), leaf.dtype.name)
