"""What one replica does in one step: forward and backward, its own update, its own metrics.

`Step.train` is the whole of it. Read it with `loss_scaling`, which has the formula by which a replica's numbers enter
the step's, and `one_device`, which makes Keras' losses, metrics and optimizers follow that formula.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf
from keras.utils import unpack_x_y_sample_weight as unpack

from nameplate.data.batches import Share
from nameplate.data.source import leaves
from nameplate.engine.collectives import CrossesReplicasError, keeping_tensors_of, other_replicas, sum_gradients
from nameplate.engine.compile import called, overridden, weighted_by_class
from nameplate.engine.host_collectives import replica_number
from nameplate.engine.loss_scaling import LossScale, Reduction, counting, scaling
from nameplate.engine.private import compute_loss, loss_tracker, masks, output_trackers, set_masks
from nameplate.engine.reductions import (
    StepPass,
    StepReductions,
    UntriedStepError,
    current_pass,
    passing,
    require_tried,
)
from nameplate.engine.trial import try_step
from nameplate.engine.whole_batch import Result, result_behind
from nameplate.errors import NameplateError
from nameplate.graph.tree import layers

Logs = dict[str, tf.Tensor]  # what a model's own step returns, by name


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images, made on the device that trains on them."""

    layers: keras.Model
    inputs: tuple[str, ...]  # names of the inputs that are images, if x is a dict

    def __call__(self, x: Any) -> Any:
        """Return x with each image changed at random."""
        if not isinstance(x, dict):
            return self.layers(x, training=True)
        return {
            name: self.layers(tensor, training=True) if name in self.inputs else tensor for name, tensor in x.items()
        }


@dataclass(frozen=True)
class Step:
    """The computation of a replica for a compiled model; its methods are called in replica context."""

    model: keras.Model
    augmentation: Augmentation | None = None  # applied to x in training
    class_weights: tf.Tensor | None = None  # (classes,) in floatx; the last is for all other labels
    xla: bool = False  # compile forward and backward
    # Of the model's own code, in training (True) and evaluation (False):
    reductions: dict[bool, StepReductions] = field(default_factory=dict)  # once the step has been tried
    results: dict[bool, dict[str, Result]] = field(default_factory=lambda: {True: {}, False: {}})  # logs from metrics

    @property
    def is_users(self) -> bool:
        """Say whether the model brings its own `train_step`, which then does all of it."""
        return overridden(self.model, "train_step")

    def uncompiled(self) -> str | None:
        """Return why `xla`, if asked for, does not compile the passes; None if it does."""
        if self.xla and self.is_users:
            return "xla: not compiled, the model brings a train_step of its own"
        if self.xla and crosses_replicas(self.model):
            return "xla: not compiled, batch statistics cross the replicas; sync_batch_norm=False compiles"
        return None

    def train(self, examples: Any, shares: list[Share]) -> tuple[tf.Tensor, Logs]:
        """Update the replica's copies by its share of a step; return its part of the loss and of the model's own logs.

        The losses of all replicas add up to the loss over the step's examples, however unequal the shares. So do the
        gradients, which are summed over the replicas before the update: each replica then makes the same one.

        Raises:
            UntriedStepError: the model's own code makes numbers that have not been tried yet, see `try_out`.
        """
        share, examples = share_of_this_replica(shares), self._prepared(examples)
        with self._traced(examples, share, training=True):
            if self.is_users:
                return self._train_by_users_step(examples, share)
            x, y, weight = unpack(examples)
            scale, variables = LossScale(share), self.model.trainable_variables
            predicted, loss, gradients = self._passes(x, y, weight, scale)
            if variables:
                gradients = sum_gradients([scale.counted_once(gradient) for gradient in gradients], variables)
                self.model.optimizer.apply(gradients, variables)
            logs = self._update_metrics(x, y, weight, predicted, loss, scale)
            return tf.cast(loss, tf.float32), self._scaled_logs(logs, scale, training=True)

    def _train_by_users_step(self, examples: Any, share: Share) -> tuple[tf.Tensor, Logs]:
        """Train with the model's own `train_step`: its gradients are scaled and summed as they reach an optimizer."""
        require_tried()
        scale = LossScale(share)
        with self._deferred(share):
            logs = self.model.train_step(examples)
        return _loss_of(logs, scale), self._scaled_logs(logs, scale, training=True)

    def evaluate(self, examples: Any, shares: list[Share]) -> Logs:
        """Add the replica's share to the metrics; return its part of the model's own logs.

        Raises:
            UntriedStepError: as `train`.
        """
        share = share_of_this_replica(shares)
        scale = LossScale(share)
        with self._traced(examples, share, training=False):
            if overridden(self.model, "test_step"):
                with self._deferred(share):
                    logs = self.model.test_step(examples)
            else:
                x, y, weight = unpack(examples)
                with scaling(scale):
                    predicted = self._call(x, training=False)
                loss = self._loss(x, y, predicted, weight, scale, training=False)
                logs = self._update_metrics(x, y, weight, predicted, loss, scale)
            return self._scaled_logs(logs, scale, training=False)

    def predict(self, examples: Any) -> Any:
        """Return the model's outputs for the replica's share."""
        if overridden(self.model, "predict_step"):
            return self.model.predict_step(examples)
        x, _, _ = unpack(examples)
        return self._call(x, training=False)

    def try_out(self, examples: Any, *, training: bool) -> None:
        """Find out how the numbers of the model's own code are reduced over examples like these, outside of a graph.

        Raises:
            NameplateError: one of them is neither a mean nor a sum.
        """

        def once(examples: Any) -> tuple[Any, Logs]:
            if overridden(self.model, "train_step" if training else "test_step"):
                logs = self.model.train_step(examples) if training else self.model.test_step(examples)
                return None, _own_numbers(logs)
            x, y, weight = unpack(examples)
            predicted, loss, logs = self._call(x, training=training), None, None
            if overridden(self.model, "compute_loss"):
                loss = compute_loss(self.model, x, y, predicted, weight, training=training)
            if overridden(self.model, "compute_metrics"):
                logs = self.model.compute_metrics(x, y, predicted, sample_weight=weight)
            return loss, _own_numbers(logs)

        self.reductions[training] = try_step(self.model, once, examples)

    @contextmanager
    def _traced(self, examples: Any, share: Share, *, training: bool) -> Iterator[None]:
        """Trace a step: examples that several replicas hold are counted once, and what layers store is kept apart."""
        uncounted = [] if share.counts else [each for metric in self.model.metrics for each in metric.variables]
        with ExitStack() as stack:
            if other_replicas():
                stack.enter_context(passing(StepPass(self.reductions.get(training))))
            stack.enter_context(keeping_tensors_of(self._layers_of_users()))
            stack.enter_context(_unchanged(uncounted))
            try:
                yield
            except UntriedStepError as untried:
                untried.examples = tf.nest.map_structure(_like, examples)
                raise

    @contextmanager
    def _deferred(self, share: Share) -> Iterator[None]:
        """Trace a step of the model's own: its losses stay means, what it hands to an optimizer is scaled there."""
        trackers = output_trackers(self.model)
        with scaling(LossScale(share, deferred=True)), counting(share.length, trackers):
            yield

    def _layers_of_users(self) -> list[keras.Layer]:
        """Return the layers, the model among them, whose classes are not Keras' own: those may store anything."""
        everything = [self.model, *layers(self.model).values()]
        return [layer for layer in everything if not type(layer).__module__.startswith("keras.")]

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
        return called(self.model, x, training=training)

    def _passes(self, x: Any, y: Any, weight: Any, scale: LossScale) -> tuple[Any, tf.Tensor, list[Any]]:
        """Go forward and backward, compiled if that is asked for and possible."""
        if self.xla and not crosses_replicas(self.model):
            try:
                return self._compiled_passes(x, y, weight, LossScale(scale.share, compiled=True))
            except CrossesReplicasError:
                pass  # a masked or weighted mean, whose divisor is counted over all replicas
        return self._forward_backward(x, y, weight, scale)

    def _compiled_passes(self, x: Any, y: Any, weight: Any, scale: LossScale) -> tuple[Any, tf.Tensor, list[Any]]:
        def passes(x: Any, y: Any, weight: Any) -> tuple[Any, ...]:
            predicted, loss, gradients = self._forward_backward(x, y, weight, scale)
            return predicted, loss, gradients, masks(predicted)

        predicted, loss, gradients, held = tf.function(passes, jit_compile=True, autograph=False)(x, y, weight)
        set_masks(predicted, held)
        return predicted, loss, gradients

    def _forward_backward(self, x: Any, y: Any, weight: Any, scale: LossScale) -> tuple[Any, tf.Tensor, list[Any]]:
        """Return the predictions, the replica's part of the loss, and the gradients of that part."""
        step_pass = current_pass()
        if step_pass is not None:
            step_pass.restart()  # an attempt to compile may have gone forward already
        with tf.GradientTape() as tape:
            with scaling(scale):
                predicted = self._call(x, training=True)
            loss = self._loss(x, y, predicted, weight, scale, training=True)
            # For float16: lest small gradients vanish. The optimizer divides them again.
            amplified = self.model.optimizer.scale_loss(loss)
        # Outside of `scaling`: the loss is scaled already, and gradients of collectives just add up.
        return predicted, loss, tape.gradient(amplified, self.model.trainable_variables)

    def _loss(self, x: Any, y: Any, predicted: Any, weight: Any, scale: LossScale, *, training: bool) -> tf.Tensor:
        """Return the replica's part of the loss.

        Keras' own losses are scaled as they are reduced. A `compute_loss` of the model's own sees means, and its result
        is scaled, as the mean or sum that a trial has found it to be.
        """
        users, step_pass = overridden(self.model, "compute_loss"), current_pass()
        inside = LossScale(scale.share, deferred=users, compiled=scale.compiled)
        reduction = step_pass.reductions().loss if users and step_pass is not None else Reduction.MEAN
        with scaling(inside), counting(scale.share.length, output_trackers(self.model)):
            loss = compute_loss(self.model, x, y, predicted, weight, training=training)
        return scale.scaled(loss, reduction) if users else loss

    def _update_metrics(self, x: Any, y: Any, weight: Any, predicted: Any, loss: tf.Tensor, scale: LossScale) -> Any:
        """Update the metrics; return what a `compute_metrics` of the model's own returns, None if it has none.

        The mean loss of an epoch weighs every example alike, so its tracker takes the mean over the share with as many
        examples as weight.
        """
        loss_tracker(self.model).update_state(scale.unscaled(loss), sample_weight=scale.share.length)
        with scaling(scale):
            logs = self.model.compute_metrics(x, y, predicted, sample_weight=weight)
        return logs if overridden(self.model, "compute_metrics") else None

    def _scaled_logs(self, logs: Any, scale: LossScale, *, training: bool) -> Logs:
        """Return the replica's part of each number that the model's own code logs; results of metrics are noted.

        A metric adds up over the replicas by itself, so its result is read once the step is over.
        """
        parts: Logs = {}
        for name, value in flat_logs(logs):
            result = result_behind(value)
            if result is not None:
                self.results[training][name] = result
                parts[name] = tf.zeros(())
            else:
                parts[name] = scale.scaled(_as_float(value), _log_reduction(name))
        return parts


def crosses_replicas(model: keras.Model) -> bool:
    """Say whether a forward pass needs the other replicas: for batch statistics over all of them, which XLA cannot."""
    replicated = tf.distribute.get_strategy().num_replicas_in_sync > 1
    return replicated and any(getattr(layer, "synchronized", False) for layer in layers(model).values())


def share_of_this_replica(shares: list[Share]) -> Share:
    """Return the share of the replica that is being traced."""
    return shares[replica_number()]


def _output_rank(model: keras.Model) -> int | None:
    """Return the rank of a model's only output; None if its graph does not show it."""
    outputs = getattr(model, "outputs", None)
    return len(outputs[0].shape) if isinstance(outputs, list) and len(outputs) == 1 else None


@contextmanager
def _unchanged(variables: list[keras.Variable]) -> Iterator[None]:
    """Restore the values of variables at the end."""
    values = [tf.identity(variable.value) for variable in variables]
    yield
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def flat_logs(logs: Any) -> Iterator[tuple[str, Any]]:
    """Yield the logs of a model's own step by name: Keras keeps compiled metrics in a dict inside."""
    for name, value in logs.items() if isinstance(logs, dict) else ():
        if isinstance(value, dict):
            yield from flat_logs(value)
        elif value is not None:
            yield name, value


def _own_numbers(logs: Any) -> Logs:
    """Return the logs of a step by name, without the results of metrics: those are read when it is over."""
    return {name: value for name, value in flat_logs(logs) if result_behind(value) is None}


def _log_reduction(name: str) -> Reduction:
    step_pass = current_pass()
    if step_pass is None:
        return Reduction.MEAN
    reductions = step_pass.reductions().logs
    if name not in reductions:
        raise NameplateError(f"the step returns {name!r}, which it did not when it was tried with random numbers")
    return reductions[name]


def _loss_of(logs: Any, scale: LossScale) -> tf.Tensor:
    """Return the replica's part of the loss that a model's own step logs, zero if it logs none."""
    loss = dict(flat_logs(logs)).get("loss")
    return tf.zeros(()) if loss is None else scale.scaled(tf.reduce_mean(_as_float(loss)))


def _as_float(value: Any) -> tf.Tensor:
    return tf.cast(value, tf.float32)


def _like(leaf: Any) -> Any:
    return None if leaf is None else keras.KerasTensor((None, *leaf.shape[1:]), leaf.dtype.name)
