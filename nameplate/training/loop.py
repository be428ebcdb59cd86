"""The distributed fit: many steps a call in the graph, Python between them at events only.

An event is a record of metrics, a checkpoint, the end of an epoch. Between two events nothing is read back from the
devices and Python does not run. The number of steps a call changes nothing in what is computed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from nameplate.engine.errors import device_errors
from nameplate.engine.graph import EvaluationGraph, TrainGraph, Value, logs_or_metrics
from nameplate.engine.optimizer_state import averages_in_place
from nameplate.engine.private import callbacks as hooks
from nameplate.engine.private.callbacks import restored_epoch, stop_on_nan
from nameplate.engine.private.compiled import copies, metric_values
from nameplate.engine.private.optimizers import finalize
from nameplate.engine.signals import StopRequest
from nameplate.engine.statistics import assign_replica_means, at_replica_means, unsynchronised
from nameplate.engine.step_ranges import StepsPerCall
from nameplate.errors import NotFiniteError, StoppedError
from nameplate.graph.name_contract import recheck
from nameplate.training.checkpoint_manager import Checkpoints
from nameplate.training.monitor import numbers
from nameplate.training.observers import Observer, Record, RunLength
from nameplate.training.progress import Progress, history_of, restore_history
from nameplate.training.stages import Stages


@dataclass(frozen=True)
class Plan:
    """How far to train, and what happens when."""

    total_steps: int  # over the whole run
    steps_per_epoch: int
    examples_per_epoch: int
    global_batch: int  # examples a step
    validate_every: int = 1  # epochs
    record_every: int = 50  # steps
    steps_per_loop: int | None = None  # at most so many steps a call; None: as many as take about half a second
    steps_per_hook: int = 1  # steps between two calls of a callback's hooks of batches
    max_rollbacks: int = 0  # how often NaN leads back to the last good checkpoint before it ends the run

    def examples(self, step: int) -> int:
        """Return the examples trained on when `step` steps of the run are done; an epoch's last step has fewer."""
        epoch, within = divmod(step, self.steps_per_epoch)
        return epoch * self.examples_per_epoch + min(within * self.global_batch, self.examples_per_epoch)


@dataclass
class Loop:
    """One process' part of a run, from where it stands to its end."""

    model: keras.Model
    train: TrainGraph
    validation: EvaluationGraph | None
    plan: Plan
    callbacks: keras.callbacks.CallbackList
    observers: Sequence[Observer] = ()
    checkpoints: Checkpoints | None = None
    progress: Progress = field(default_factory=Progress)
    stop: StopRequest = field(default_factory=StopRequest)
    stages: Stages = field(default_factory=Stages)  # the model stands at the last one: all train that ever will
    averaged: bool = False  # at the ends of epochs, moving averages of the optimizer are in the weights' place
    say: Callable[[str], None] = print

    def __post_init__(self) -> None:
        self._stage = len(self.stages) - 1
        self._apart = unsynchronised(self.model)

    def run(self) -> Progress:
        """Train to the end of the plan and return where the run then stands.

        Raises:
            NotFiniteError: a step's loss is NaN or infinite; nothing after the last checkpoint is saved.
            StoppedError: a signal asked for the end; everything is saved.
        """
        restore_history(self.model.history, self.progress)
        if self.averaged and self._is_over():
            finalize(self.model.optimizer)
        try:
            while not self._is_over():
                try:
                    self._observed()
                except NotFiniteError as error:
                    self._roll_back(error)
                else:
                    break
        finally:
            self._release()
        return self.progress

    def _is_over(self) -> bool:
        return self.progress.finished or self.progress.step >= self.plan.total_steps

    def _release(self) -> None:
        """Let go of the data."""
        self.train.release()
        if self.validation:
            self.validation.release()

    def _observed(self) -> None:
        run_length = RunLength(self.progress.step, self.plan.total_steps, self.plan.steps_per_epoch)
        with self._as_it_counts():
            for observer in self.observers:
                observer.began(self.model, run_length)
        try:
            self._run()
        finally:
            for observer in self.observers:
                observer.ended()

    def _roll_back(self, error: NotFiniteError) -> None:
        """Go back to the last good checkpoint, past the data that led to NaN; raise the error after too many times.

        The same steps on the same data would end the same way. So the steps from there to the one that failed consume
        their data and train nothing. All of it is in the checkpoints, and a resume does the same again.
        """
        times = self.progress.rollbacks + 1
        if not self.checkpoints or times > self.plan.max_rollbacks:
            raise error
        self.checkpoints.saved()
        restored = self.checkpoints.restore()
        self.progress = replace(restored, rollbacks=times, passed_over=(restored.step, error.step))
        self.checkpoints.say(
            f"{error.what}; going back to {self.checkpoints.last}, and passing over the data up to step {error.step} "
            f"(rollback {times} of {self.plan.max_rollbacks})"
        )

    def _run(self) -> None:
        self._per_call = StepsPerCall(
            self.plan.steps_per_loop,
            by_batch=hooks.are_wanted(self.callbacks, hooks.TRAINING),
            per_hook=self.plan.steps_per_hook,
        )
        self._saved_at = self.progress.step
        self._since_record = (0, 0.0)  # examples and seconds of training
        self._values: dict[str, Value] = {}
        self._said_not_finite = False
        self.model.stop_training = False
        self.callbacks.on_train_begin()
        self._go_on_at(restored_epoch(self.model))
        self.train.begin(max(self.progress.step, self.progress.passed_over[1]))
        # Callbacks forget everything when training begins; a resume reminds them.
        restore_history(self.model.history, self.progress)
        if self.checkpoints:
            self.checkpoints.remind()
            if self.plan.max_rollbacks and self.checkpoints.last is None:
                self._save({})  # so that there is something to go back to
        while self.progress.step < self.plan.total_steps and not self.model.stop_training:
            self._epoch()
        # Only an early stop ends a run for good: a longer plan goes on where a shorter one ended.
        self.progress = replace(self.progress, finished=bool(self.model.stop_training))
        if self.checkpoints and (self._saved_at != self.progress.step or self.progress.finished):
            self._save(self._values)
        assign_replica_means(self._apart)
        # After the save: early stopping brings back the best weights, and these are not what was measured last. As in
        # Keras averages become the weights before that, and are what callbacks save here.
        finalize(self.model.optimizer)
        self.callbacks.on_train_end(dict(self._values))

    def _go_on_at(self, epoch: int | None) -> None:
        """Go on at the epoch that a callback brought the model back to, if one did; our own checkpoints know better."""
        if epoch is not None and not self.checkpoints:
            self.progress = replace(self.progress, step=epoch * self.plan.steps_per_epoch, epoch=epoch)

    def _as_it_counts(self) -> AbstractContextManager[None]:
        """Inside, the model has the weights that are validated and saved: the averages, where they are asked for."""
        return averages_in_place(self.model.optimizer) if self.averaged else nullcontext()

    def _epoch(self) -> None:
        epoch, first = divmod(self.progress.step, self.plan.steps_per_epoch)
        end = min((epoch + 1) * self.plan.steps_per_epoch, self.plan.total_steps)
        if first == 0:
            self.model.reset_metrics()
        self._enter_stage(epoch)
        self.callbacks.on_epoch_begin(epoch)
        while self.progress.step < end and not self.model.stop_training:
            self._steps(epoch, self._next_event(end))
            self._between_steps(epoch, end)
        self._end_epoch(epoch)

    def _enter_stage(self, epoch: int) -> None:
        """Let the layers of the epoch's stage train, and no others."""
        stage = self.stages.at(epoch)
        if stage != self._stage:
            names = self.stages.enter(self.model, stage)
            self.say(self.stages.in_words(stage, names))
            self.train.retrace()
            self._stage = stage

    def _steps(self, epoch: int, event: int) -> None:
        """Go on to the event, or part of the way where a call would take too long."""
        step = self.progress.step
        if step < self.progress.passed_over[1]:
            self._advance(min(event, self.progress.passed_over[1]), np.array([np.nan]))
            return
        first = step - epoch * self.plan.steps_per_epoch
        count = self._per_call.steps(event - step)
        if self._per_call.by_batch:
            self.callbacks.on_train_batch_begin(first)
        began = time.perf_counter()
        with device_errors():
            losses = self.train.run(epoch, first, count)
        seconds = time.perf_counter() - began
        self._per_call.took(count, seconds)
        examples = self.plan.examples(step + count) - self.plan.examples(step)
        self._since_record = (self._since_record[0] + examples, self._since_record[1] + seconds)
        self._refuse_not_finite(losses, step)
        self._advance(step + count, losses)
        if self._per_call.by_batch:
            with at_replica_means(self._apart):
                self.callbacks.on_train_batch_end(first + count - 1, self._measured())

    def _between_steps(self, epoch: int, end: int) -> None:
        """Do what is due at this step; what is due at the end of the epoch waits for its validation."""
        step = self.progress.step
        with self._as_it_counts():
            for observer in self.observers:
                observer.advanced(step)
        if self.checkpoints:
            self.checkpoints.surface()
        if step == end:
            return
        if step % self.plan.record_every == 0:
            self._record(epoch, self._measured(), of_epoch=False)
        if self.checkpoints and self.checkpoints.due(step):
            self._save(self._measured(), partial=True)
        if self.stop.received:
            self._stop(self._measured(), partial=True)

    def _end_epoch(self, epoch: int) -> None:
        """Validate, tell everyone, save; the metrics of an epoch that is not complete outlive its validation."""
        values = self._measured()
        complete = self.progress.position == 0
        last = self.progress.step >= self.plan.total_steps or self.model.stop_training
        with self._as_it_counts():
            if self.validation and (last or (complete and (epoch + 1) % self.plan.validate_every == 0)):
                values |= self._validated(keep_metrics=not complete)
            self._values = values
            best = self.checkpoints.better(numbers(values), self.progress.best) if self.checkpoints else None
            self.progress = replace(self.progress, best=best)
            with at_replica_means(self._apart):  # so that what a callback saves is what was measured
                self.callbacks.on_epoch_end(epoch, dict(values))
            self.progress = replace(self.progress, history=history_of(self.model))
            self._record(epoch, values, of_epoch=True)
        stage = self._stage_ended(epoch) if complete else None
        if self.checkpoints and (stage or self._save_is_due(epoch)):
            self._save(values, stage=stage)
        if self.stop.received and self.progress.step < self.plan.total_steps:  # what is done needs no other start
            self._stop(values)

    def _save_is_due(self, epoch: int) -> bool:
        assert self.checkpoints is not None
        return self.checkpoints.due_after_epoch(epoch) or self.checkpoints.due(self.progress.step)

    def _stage_ended(self, epoch: int) -> dict[str, Any] | None:
        """Return what a checkpoint says of the stage that the end of an epoch is the end of, if it is."""
        over = self.progress.step >= self.plan.total_steps and len(self.stages) > 1
        return self.stages.told(self._stage) if over or self.stages.ends(epoch + 1) else None

    def _validated(self, *, keep_metrics: bool) -> dict[str, Value]:
        assert self.validation is not None
        held = _metric_values(self.model) if keep_metrics else None
        self.callbacks.on_test_begin()
        self.model.reset_metrics()
        with device_errors(), at_replica_means(self.model.non_trainable_variables):
            evaluate_all(self.model, self.validation, self.callbacks)
        measured = self.validation.measured()
        self.callbacks.on_test_end(dict(measured))
        self._say_not_finite(measured)
        if held is not None:
            _set_metric_values(held)
        return {f"val_{name}": value for name, value in measured.items()}

    def _say_not_finite(self, measured: Mapping[str, Any]) -> None:
        """Say once that a validation gave no number: training goes on, and its end would look like any other."""
        spoilt = [f"val_{name}" for name, value in measured.items() if not np.isfinite(value).all()]
        if spoilt and not self._said_not_finite:
            self._said_not_finite = True
            self.say(
                f"{', '.join(spoilt)}: NaN or infinite after step {self.progress.step}, while the loss in training is "
                "finite. Look for NaN in the validation data, or in what only validation computes; NaN is never best"
            )

    def _measured(self) -> dict[str, Value]:
        """Read the metrics from the devices: the only time that anything is."""
        values = logs_or_metrics(metric_values(self.model), self.train.logs())
        begun = (self.progress.step - 1) // self.plan.steps_per_epoch * self.plan.steps_per_epoch
        after, last = self.progress.passed_over
        untrained = after <= begun and self.progress.step <= last  # the epoch's data is passed over: no 0, no number
        return dict.fromkeys(values, np.nan) if untrained else values

    def _record(self, epoch: int, values: dict[str, Value], *, of_epoch: bool) -> None:
        examples, seconds = self._since_record
        self._since_record = (0, 0.0)
        extra = {"step_loss": self._step_loss}
        rate = getattr(self.model.optimizer, "learning_rate", None)  # a MultiOptimizer has several
        if rate is not None:
            extra["learning_rate"] = float(np.asarray(rate))
        if examples:
            extra["examples_per_second"] = examples / seconds
        record = Record(self.progress.step, epoch, {**numbers(values), **extra}, of_epoch)
        for observer in self.observers:
            observer.recorded(record)

    def _advance(self, step: int, losses: np.ndarray) -> None:
        epoch, within = divmod(step, self.plan.steps_per_epoch)
        position = within * self.plan.global_batch
        self._step_loss = float(losses[-1])
        self.progress = replace(self.progress, step=step, epoch=epoch, position=position)

    def _refuse_not_finite(self, losses: np.ndarray, first: int) -> None:
        wrong = np.flatnonzero(~np.isfinite(losses))
        if wrong.size and (self.checkpoints or not stop_on_nan(self.callbacks)):
            saved = self.checkpoints.saved() if self.checkpoints else "there are no checkpoints"
            step = first + int(wrong[0]) + 1
            raise NotFiniteError(step, f"the loss of step {step} is {losses[wrong[0]]}", saved)

    def _next_event(self, end: int) -> int:
        """Return the step of the next event: a record, a checkpoint, the end of the epoch."""
        step = self.progress.step
        intervals = [self.plan.record_every, *(each.every_steps for each in self.observers if each.every_steps)]
        if self.checkpoints and self.checkpoints.config.every_steps:
            intervals.append(self.checkpoints.config.every_steps)
        single = [at for each in self.observers for at in each.at_steps if at > step]
        return min(end, *single, *((step // interval + 1) * interval for interval in intervals))

    def _save(self, values: dict[str, Value], *, stage: dict[str, Any] | None = None, partial: bool = False) -> None:
        assert self.checkpoints is not None
        recheck(self.model)  # a name that was assigned since compile would be the key of its weights
        self._saved_at = self.progress.step
        self.checkpoints.save(self.progress, numbers(values), stage=stage, partial=partial)

    def _stop(self, values: dict[str, Value], *, partial: bool = False) -> None:
        assert self.stop.received is not None
        saved = "there are no checkpoints"
        if self.checkpoints:
            if self._saved_at != self.progress.step:
                self._save(values, partial=partial)
            self.checkpoints.wait()
            saved = self.checkpoints.saved()
        raise StoppedError(self.stop.received, self.progress.step, saved)


def evaluate_all(model: keras.Model, graph: EvaluationGraph, callbacks: keras.callbacks.CallbackList) -> None:
    """Make a whole pass in one call, or, where a callback asks for it, a step a call until one says to stop."""
    model.stop_evaluating = False
    if not hooks.are_wanted(callbacks, hooks.TESTING):
        graph.run()
        return
    for first in range(0, graph.steps, model.steps_per_execution):
        count = min(model.steps_per_execution, graph.steps - first)
        callbacks.on_test_batch_begin(first)
        graph.run_steps(first, count)
        callbacks.on_test_batch_end(first + count - 1, graph.measured())
        if model.stop_evaluating:
            return


def _metric_values(model: keras.Model) -> list[tuple[Any, Any]]:
    return [
        (copy, copy.numpy()) for metric in model.metrics for variable in metric.variables for copy in copies(variable)
    ]


def _set_metric_values(held: list[tuple[Any, Any]]) -> None:
    for copy, value in held:
        copy.assign(value)
