"""The training loop: many steps a call in the graph, and Python only at events.

An event is a record of metrics, a checkpoint, the end of an epoch. Between two events nothing is read back from the
devices and Python does not run. How many steps a call makes does not change what is computed.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from nameplate.data.batches import Epoch
from nameplate.engine.errors import device_errors
from nameplate.engine.graph import EvaluationGraph, TrainGraph, Value, logs_or_metrics, metric_values
from nameplate.engine.optimizer_state import averages_in_place, finalize
from nameplate.engine.private import copies, restored_epoch
from nameplate.engine.signals import StopRequest
from nameplate.engine.statistics import assign_replica_means, at_replica_means, unsynchronised
from nameplate.engine.step_ranges import StepsPerCall
from nameplate.errors import NotFiniteError, StoppedError
from nameplate.graph.name_contract import recheck
from nameplate.training.callbacks import TRAIN_HOOKS, use_hooks
from nameplate.training.checkpoint_manager import Checkpoints
from nameplate.training.evaluate import evaluate_all
from nameplate.training.monitor import numbers
from nameplate.training.observers import Observer, Record, RunLength
from nameplate.training.plan import Plan
from nameplate.training.progress import Progress, history_of, restore_history
from nameplate.training.stages import Stages


@dataclass
class Loop:
    """One process's part of a run, from where it stands to its end."""

    model: keras.Model
    train: TrainGraph
    validation: EvaluationGraph | None
    plan: Plan
    callbacks: keras.callbacks.CallbackList
    observers: Sequence[Observer] = ()
    checkpoints: Checkpoints | None = None
    progress: Progress = field(default_factory=Progress)
    stop: StopRequest = field(default_factory=StopRequest)
    stages: Stages = field(default_factory=Stages)  # the model starts in the last one, with all layers that ever train
    averaged: bool = False  # validate and save the optimizer's moving averages instead of the weights
    say: Callable[[str], None] = print

    def __post_init__(self) -> None:
        self._stage = len(self.stages) - 1
        self._apart = unsynchronised(self.model)

    def run(self) -> Progress:
        """Train to the end of the plan, and return where the run stands then.

        Raises:
            NotFiniteError: the loss of a step is NaN or infinite; nothing after the last checkpoint is saved.
            StoppedError: a signal asked the run to stop; everything is saved.
        """
        restore_history(self.model.history, self.progress)
        if self._is_over():
            self._end_again()
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

    def _end_again(self) -> None:
        """Leave the model of a run that was over before as its end left it: with averages, or the best weights."""
        if not self.checkpoints:
            return
        self.callbacks.on_train_begin()
        restore_history(self.model.history, self.progress)
        self.checkpoints.restore_callbacks()
        finalize(self.model.optimizer)
        self.callbacks.on_train_end()

    def _is_over(self) -> bool:
        return self.progress.finished or self.progress.step >= self.plan.total_steps

    def _release(self) -> None:
        """Drop the data."""
        self.train.release()
        if self.validation:
            self.validation.release()

    def _observed(self) -> None:
        run_length = RunLength(self.progress.step, self.plan.total_steps, self.plan.epochs)
        with self._as_it_counts():
            for observer in self.observers:
                observer.began(self.model, run_length)
        try:
            self._run()
        finally:
            for observer in self.observers:
                observer.ended()

    def _roll_back(self, error: NotFiniteError) -> None:
        """Restore the last good checkpoint, to continue past the data that led to NaN; raise `error` if too often.

        The same steps on the same data would end the same way. So the steps from there to the one that failed consume
        their data and train nothing. Checkpoints hold all of this, and a resume does the same.
        """
        times = self.progress.rollbacks + 1
        if not self.checkpoints or times > self.plan.max_rollbacks:
            raise error
        self.checkpoints.saved()
        restored = self.checkpoints.restore()
        self.progress = replace(restored, rollbacks=times, passed_over=(restored.step, error.step))
        self.checkpoints.say(
            f"{error.what}; going back to {self.checkpoints.last}, and skipping the data up to step {error.step} "
            f"(rollback {times} of {self.plan.max_rollbacks})"
        )

    def _run(self) -> None:
        self._per_call = StepsPerCall(
            self.plan.steps_per_loop,
            by_batch=use_hooks(self.callbacks, TRAIN_HOOKS),
            per_hook=self.plan.steps_per_hook,
        )
        self._saved_at = self.progress.step
        self._since_record = (0, 0.0)  # examples and seconds of training
        self._values: dict[str, Value] = {}
        self._said_not_finite = False
        self.model.stop_training = False
        self.callbacks.on_train_begin()
        self._continue_at(restored_epoch(self.model))
        self.train.begin(max(self.progress.step, self.progress.passed_over[1]))
        # Callbacks reset themselves in `on_train_begin`, and so does the History.
        restore_history(self.model.history, self.progress)
        if self.checkpoints:
            self.checkpoints.restore_callbacks()
            if self.plan.max_rollbacks and self.checkpoints.last is None:
                self._save({})  # something to go back to
        while self.progress.step < self.plan.total_steps and not self.model.stop_training:
            self._epoch()
        # Only an early stop ends a run for good: a longer plan continues where a shorter one ended.
        self.progress = replace(self.progress, finished=bool(self.model.stop_training))
        if self.checkpoints and (self._saved_at != self.progress.step or self.progress.finished):
            self._save(self._values)
        assign_replica_means(self._apart)
        # After the save, since early stopping now restores the best weights, which are not those measured last. As in
        # Keras, averages become the weights before that, and callbacks save these here.
        finalize(self.model.optimizer)
        self.callbacks.on_train_end(dict(self._values))

    def _continue_at(self, epoch: int | None) -> None:
        """Continue at the epoch that a callback has restored, if any; our own checkpoints take precedence."""
        if epoch is not None and not self.checkpoints:
            self.progress = replace(self.progress, step=self.plan.epochs.number(epoch).first, epoch=epoch)

    def _as_it_counts(self) -> AbstractContextManager[None]:
        """Inside, the model has the weights that are validated and saved: the averages, if they are asked for."""
        return averages_in_place(self.model.optimizer) if self.averaged else nullcontext()

    def _epoch(self) -> None:
        epoch = self.plan.epochs.at(self.progress.step)
        end = min(epoch.end, self.plan.total_steps)
        if self.progress.step == epoch.first:
            self.model.reset_metrics()
        self._enter_stage(epoch.index)
        self.callbacks.on_epoch_begin(epoch.index)
        while self.progress.step < end and not self.model.stop_training:
            self._steps(epoch, self._next_event(end))
            self._between_steps(epoch.index, end)
        if self.progress.step == epoch.end and self.plan.epochs.short(epoch):
            warnings.warn(self._ran_out(), stacklevel=2)
        self._end_epoch(epoch.index)

    def _ran_out(self) -> str:
        steps, held = self.plan.epochs.steps, self.plan.epochs.pass_steps
        return (  # the first words are Keras'
            f"Your input ran out of data: a pass over it has {held} steps, so that not every epoch has "
            f"steps_per_epoch={steps}; the next epoch begins it again. dataset.repeat() has no end"
        )

    def _enter_stage(self, epoch: int) -> None:
        """Make the layers of the epoch's stage trainable, and no others."""
        stage = self.stages.at(epoch)
        if stage != self._stage:
            names = self.stages.enter(self.model, stage)
            self.say(self.stages.announcement(stage, names))
            self.train.retrace()
            self._stage = stage

    def _steps(self, epoch: Epoch, event: int) -> None:
        """Train up to the event, or part of the way if the call would take too long."""
        step = self.progress.step
        if step < self.progress.passed_over[1]:
            self._advance(min(event, self.progress.passed_over[1]), np.array([np.nan]))
            return
        first = step - epoch.first
        count = self._per_call.steps(event - step)
        if self._per_call.by_batch:
            self.callbacks.on_train_batch_begin(first)
        began = time.perf_counter()
        with device_errors():
            losses = self.train.run(epoch.of_pass, step - epoch.pass_first, count)
        seconds = time.perf_counter() - began
        self._per_call.took(count, seconds)
        examples = self.plan.examples(step + count) - self.plan.examples(step)
        self._since_record = (self._since_record[0] + examples, self._since_record[1] + seconds)
        self._refuse_not_finite(losses, step)
        self._advance(step + count, losses)
        if self._per_call.by_batch:
            with at_replica_means(self._apart):
                # As Keras counts: the last call of an epoch as if it were full.
                counted = self.plan.steps_per_hook if step + count == epoch.end else count
                self.callbacks.on_train_batch_end(first + counted - 1, self._measured())

    def _between_steps(self, epoch: int, end: int) -> None:
        """Do what is due at this step; what is due at the end of an epoch waits for the validation."""
        step = self.progress.step
        with self._as_it_counts():
            for observer in self.observers:
                observer.advanced(step)
        if self.checkpoints:
            self.checkpoints.raise_failed()
        if step == end:
            return
        for observer in self.observers:
            if observer.wants_values:
                observer.measured(epoch, numbers(self._measured()))
        if step % self.plan.record_every == 0:
            self._record(epoch, self._measured(), of_epoch=False)
        if self.checkpoints and self.checkpoints.due(step):
            self._save(self._measured(), partial=True)
        if self.stop.received:
            self._stop(self._measured(), partial=True)

    def _end_epoch(self, epoch: int) -> None:
        """Validate, report and save; the metrics of an incomplete epoch are kept over its validation."""
        values = self._measured()
        complete = self.progress.position == 0
        last = self.progress.step >= self.plan.total_steps or self.model.stop_training
        with self._as_it_counts():
            if self.validation and self.plan.validates(epoch, last=last, complete=complete):
                values |= self._validated(keep_metrics=not complete)
            self._values = values
            best = self.checkpoints.better(numbers(values), self.progress.best) if self.checkpoints else None
            improved = self.checkpoints.monitor if self.checkpoints and best != self.progress.best else None
            self.progress = replace(self.progress, best=best)
            with at_replica_means(self._apart):  # so that a callback saves what was measured
                self.callbacks.on_epoch_end(epoch, dict(values))
            self.progress = replace(self.progress, history=history_of(self.model))
            self._record(epoch, values, of_epoch=True, best=improved)
        stage = self._stage_ended(epoch) if complete else None
        if self.checkpoints and (stage or self._save_is_due(epoch)):
            self._save(values, stage=stage)
        if self.stop.received and self.progress.step < self.plan.total_steps:  # a finished run is not to be requeued
            self._stop(values)

    def _save_is_due(self, epoch: int) -> bool:
        assert self.checkpoints is not None
        return self.checkpoints.due_after_epoch(epoch) or self.checkpoints.due(self.progress.step)

    def _stage_ended(self, epoch: int) -> dict[str, Any] | None:
        """Return the description of the stage that ends with this epoch, for its checkpoint; None if none does."""
        over = self.progress.step >= self.plan.total_steps and len(self.stages) > 1
        return self.stages.described(self._stage) if over or self.stages.ends(epoch + 1) else None

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
        """Report once that a validation value is not finite: training continues, and would end as if all were well."""
        wrong = [f"val_{name}" for name, value in measured.items() if not np.isfinite(value).all()]
        if wrong and not self._said_not_finite:
            self._said_not_finite = True
            self.say(
                f"{', '.join(wrong)}: NaN or infinite after step {self.progress.step}, while the loss in training is "
                "finite. Look for NaN in the validation data, or in what only validation computes; it is never best"
            )

    def _measured(self) -> dict[str, Value]:
        """Read the metrics from the devices; nothing else is ever read from them while training."""
        values = logs_or_metrics(metric_values(self.model), self.train.logs())
        begun = self.plan.epochs.at(self.progress.step - 1).first
        after, last = self.progress.passed_over
        skipped = (
            after <= begun and self.progress.step <= last
        )  # of an epoch whose data is all skipped the metrics are 0
        return dict.fromkeys(values, np.nan) if skipped else values

    def _record(self, epoch: int, values: dict[str, Value], *, of_epoch: bool, best: str | None = None) -> None:
        examples, seconds = self._since_record
        self._since_record = (0, 0.0)
        extra = {"step_loss": self._step_loss}
        rate = getattr(self.model.optimizer, "learning_rate", None)  # a MultiOptimizer has several
        if rate is not None:
            extra["learning_rate"] = float(np.asarray(rate))
        if examples:
            extra["examples_per_second"] = examples / seconds
        record = Record(self.progress.step, epoch, {**numbers(values), **extra}, of_epoch, best)
        for observer in self.observers:
            observer.recorded(record)

    def _advance(self, step: int, losses: np.ndarray) -> None:
        epoch = self.plan.epochs.at(step)
        position = (step - epoch.first) * self.plan.global_batch
        self._step_loss = float(losses[-1])
        self.progress = replace(self.progress, step=step, epoch=epoch.index, position=position)

    def _refuse_not_finite(self, losses: np.ndarray, first: int) -> None:
        wrong = np.flatnonzero(~np.isfinite(losses))
        if wrong.size and self.plan.ends_at_nan:
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
        recheck(self.model)  # a name that was changed since compile would become the key of its weights
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


def _metric_values(model: keras.Model) -> list[tuple[Any, Any]]:
    return [
        (copy, copy.numpy()) for metric in model.metrics for variable in metric.variables for copy in copies(variable)
    ]


def _set_metric_values(held: list[tuple[Any, Any]]) -> None:
    for copy, value in held:
        copy.assign(value)
