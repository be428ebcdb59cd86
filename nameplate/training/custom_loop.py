"""A run around a training loop of the user's own: the data in an order that resumes, named checkpoints, logs.

The steps are the user's: any function, of any number of models and optimizers. What the run adds happens between them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, TypeAlias

import keras
import numpy as np

from nameplate.arguments import checked
from nameplate.data.adapters import Data, as_source, batches_of
from nameplate.data.batches import Batches, Epochs
from nameplate.data.feeds import BySeed, in_file_order, steps_from
from nameplate.data.source import Source, Stream
from nameplate.errors import NameplateError, NotFiniteError, StoppedError
from nameplate.formats.policy_file import AnyPolicy
from nameplate.naming import names
from nameplate.training.arguments import count_problems
from nameplate.training.checkpoint_manager import Checkpoints
from nameplate.training.config import CheckpointConfig, LogConfig
from nameplate.training.layer_table import classes_by_variable, layer_rows
from nameplate.training.observers import Record, RunLength
from nameplate.training.progress import Progress, Texts, about, model_json
from nameplate.training.run_record import open_run
from nameplate.training.script_run import ScriptRun, run_options
from nameplate.training.script_settings import CALL, as_text, data_settings, described, optimizer_settings
from nameplate.training.state import joint_state

Models: TypeAlias = keras.Model | Mapping[str, keras.Model]
Optimizers: TypeAlias = keras.Optimizer | Mapping[str, keras.Optimizer]


class Run:
    """A run in whose block a loop of the user's own trains, exactly resumable.

    ```python
    with nameplate.Run("runs/mine", model, optimizer) as run:
        for x, y in run.epochs((x_train, y_train), 10, batch_size=64):
            run.record(loss=train_step(x, y))
    ```
    """

    open = staticmethod(open_run)

    @checked
    def __init__(
        self,
        path: str | os.PathLike[str],
        models: Models,
        optimizers: Optimizers | None = None,
        *,
        metrics: Iterable[keras.metrics.Metric] = (),
        variables: Mapping[str, keras.Variable | keras.random.SeedGenerator] | None = None,
        settings: Mapping[str, Any] | None = None,
        naming: AnyPolicy = "strict",
        checkpoint: CheckpointConfig | None = None,
        log: LogConfig | None = None,
        resume: bool = True,
        resume_changed: Sequence[str] = (),
        seed: int = 0,
        verbose: bool | int = 1,
    ) -> None:
        """Take what the loop trains.

        Args:
            path: directory of the run, e.g. "runs/mine".
            models: a built model, or several by key; the key begins the names of its variables.
            optimizers: the model's, or those of several models by the same keys; None: `model.optimizer`.
            metrics: metrics that the loop updates and resets.
            variables: what else it remembers from step to step, e.g. the generator of its noise.
            settings: plain values that decide what is computed; a resume with others is refused.
            naming: policy that the names must satisfy: strict, report, off, a `nameplate.Policy`, or a file of one.
            checkpoint: when to save, what to keep, what is best, as in `nameplate.fit`; `monitor` is a recorded name.
            log: what is recorded, and how often.
            resume: False refuses a directory that has checkpoints.
            resume_changed: settings that may differ from those of the checkpoint.
            seed: decides the order of the examples.
            verbose: 0 shows no progress.

        Raises:
            NameplateError: with every argument that cannot be used.
        """
        self._models: dict[str, keras.Model] = dict(models) if isinstance(models, Mapping) else {"": models}
        self._optimizers = _by_key(self._models, optimizers)
        self._variables = {name: _variable(each) for name, each in (variables or {}).items()}
        _require_usable(self._models, self._optimizers)
        options = run_options(
            path,
            naming=naming,
            checkpoint=checkpoint,
            log=log,
            resume=resume,
            resume_changed=resume_changed,
            verbose=verbose,
        )
        if options is None:
            raise NameplateError("Run(None): give the path of a directory, e.g. 'runs/mine'")
        self._run, self._metrics, self._seed = ScriptRun(options), tuple(metrics), seed
        self._settings = described(dict(settings or {}))
        self._progress, self._sums = Progress(), _Means()
        self._checkpoints: Checkpoints | None = None

    @property
    def step(self) -> int:
        """Steps done, over the whole run."""
        return self._progress.step

    @property
    def epoch(self) -> int:
        """Index of the epoch that the next step belongs to."""
        return self._progress.epoch

    @property
    def history(self) -> dict[str, list[float]]:
        """Means of what was recorded, an epoch each, from the first."""
        return {name: list(series) for name, series in self._progress.history.get("values", {}).items()}

    def __enter__(self) -> Run:
        for model in self._models.values():
            self._run.require_names(model)
        for key, optimizer in self._optimizers.items():
            if not optimizer.built:
                optimizer.build(self._models[key].trainable_variables)
        self._run.optimizers = list(self._optimizers.values())
        self._run.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._checkpoints is not None:
                self._checkpoints.__exit__(kind, error, trace)
        finally:
            self._run.__exit__(kind, error, trace)

    def record(self, **values: Any) -> None:
        """Note values of the step in progress, scalars; logs have their means over the examples of an epoch."""
        self._sums.add(values)

    def epochs(
        self, data: Data, epochs: int, *, batch_size: int = 32, shuffle: bool = True, steps_per_epoch: int | None = None
    ) -> Iterator[Any]:
        """Restore the run, and yield the batches that are left of so many epochs, in the form of `data`.

        A step counts as done when the next batch is asked for; then the run saves, records and stops if that is due.
        The order is a function of the seed, the epoch and the position; a `tf.data.Dataset` keeps its own.

        Raises:
            NameplateError: the data cannot be used, or the checkpoint is of another model or other settings.
            StoppedError: a signal came; everything is saved.
        """
        if problems := count_problems({"epochs": epochs, "batch_size": batch_size, "steps_per_epoch": steps_per_epoch}):
            raise NameplateError("\n".join(problems))
        source = as_source(data)
        batches = batches_of(source, batch_size, 1, steps_per_epoch=steps_per_epoch)
        total = epochs * batches.steps
        self._restore(source, batches, epochs=epochs, shuffle=shuffle)
        ordered = shuffle and not isinstance(source, Stream)
        order = BySeed(self._seed, source.size or 0) if ordered else in_file_order
        observers = self._observers
        length = RunLength(self.step, total, Epochs(batches.steps))
        if self.step >= total:
            return
        try:
            for observer in observers:
                observer.began(next(iter(self._models.values())), length)
            for batch in steps_from(source, batches, order, self.step):
                yield batch
                self._advance(batches, total)
                if self.step >= total:
                    break
        finally:
            for observer in observers:
                observer.ended()
        self._run.report(self._progress, self._checkpoints)

    def _restore(self, source: Source | Stream, batches: Batches, *, epochs: int, shuffle: bool) -> None:
        settings = {
            CALL: "nameplate.Run",
            "seed": self._seed,
            "fit": {
                "epochs": epochs,
                "steps_per_epoch": batches.steps,
                "global_batch": batches.batch,
                "shuffle": shuffle,
            },
            "optimizer": {key or "optimizer": optimizer_settings(each) for key, each in self._optimizers.items()},
            "data": data_settings(source),
            "settings": self._settings,
        }
        classes = {
            f"{key}/{name}" if key else name: kind
            for key, model in self._models.items()
            for name, kind in classes_by_variable(model).items()
        }
        text = _described_models(self._models)
        state = joint_state(self._models, self._optimizers, metrics=self._metrics, variables=self._variables)
        monitor = self._run.options.checkpoint.monitor or "loss"
        self._checkpoints = self._run.checkpoints(
            state, Texts(text, as_text(settings), classes, about({})), settings, (), monitor
        )
        self._progress = self._run.restored(self._checkpoints, settings, epochs * batches.steps)
        self._sums = _Means(self._progress.history.get("sums", {}))
        rows = [
            (f"{key}/{row[0]}" if key else row[0], *row[1:])
            for key, each in self._models.items()
            for row in layer_rows(each)
        ]
        self._observers = self._run.observers(", ".join(model.name for model in self._models.values()), rows, settings)

    def _advance(self, batches: Batches, total: int) -> None:
        """Count a step as done, and do what is due after it."""
        assert self._checkpoints is not None
        epoch, within = divmod(self.step, batches.steps)
        last = within + 1 == batches.steps
        self._sums.weigh(batches.last if last and batches.last else batches.batch)
        done = self.step + 1
        position = 0 if last else (within + 1) * batches.batch
        self._progress = replace(self._progress, step=done, epoch=epoch + last, position=position)
        for observer in self._observers:
            observer.advanced(done)
        self._checkpoints.raise_failed()
        values: dict[str, float] = {}
        stopping = self._run.stop.received is not None and done < total
        save = self._checkpoints.due(done) or done == total or stopping
        if last or save or done % self._run.options.log.every_steps == 0:
            values = self._means()
            self._note(values, epoch, of_epoch=last)
        if last:
            save = save or self._checkpoints.due_after_epoch(epoch)
            self._end_epoch(values, epoch)
        if save:
            self._save(values, partial=not last)
        if stopping:
            assert self._run.stop.received is not None
            raise StoppedError(self._run.stop.received, done, self._checkpoints.saved())

    def _means(self) -> dict[str, float]:
        assert self._checkpoints is not None
        values = self._sums.values()
        wrong = [name for name, value in values.items() if not np.isfinite(value)]
        if wrong:
            what = f"{', '.join(wrong)} {'is' if len(wrong) == 1 else 'are'} NaN or infinite by step {self.step}"
            raise NotFiniteError(self.step, what, self._checkpoints.saved())
        return values

    def _note(self, values: Mapping[str, float], epoch: int, *, of_epoch: bool) -> None:
        assert self._checkpoints is not None
        improved = of_epoch and self._checkpoints.better(values, self._progress.best) != self._progress.best
        best = self._checkpoints.monitor if improved else None
        for observer in self._observers:
            observer.recorded(Record(self.step, epoch, values, of_epoch, best))

    def _end_epoch(self, values: Mapping[str, float], epoch: int) -> None:
        assert self._checkpoints is not None
        history = self._progress.history
        series = {name: [*past] for name, past in history.get("values", {}).items()}
        for name, value in values.items():
            series.setdefault(name, []).append(value)
        best = self._checkpoints.better(values, self._progress.best)
        past = {"epoch": [*history.get("epoch", []), epoch], "values": series}
        self._progress, self._sums = replace(self._progress, best=best, history=past), _Means()

    def _save(self, values: Mapping[str, float], *, partial: bool) -> None:
        assert self._checkpoints is not None
        history = {**self._progress.history, "sums": self._sums.plain()}
        self._checkpoints.save(replace(self._progress, history=history), values, partial=partial)


def _described_models(models: Mapping[str, keras.Model]) -> str:
    """Return the configuration of a single model as Keras has it; of several, each as a layer of its key."""
    if "" in models:
        return model_json(models[""])
    inside = []
    for key, model in models.items():
        own = json.loads(model_json(model))
        inside.append({**own, "config": {**(own["config"] or {}), "name": key}})
    return json.dumps({"class_name": "several_models", "config": {"layers": inside}})


class _Means:
    """Means of recorded values over the examples of an epoch; values stay on the device until they are needed."""

    def __init__(self, sums: Mapping[str, Sequence[float]] | None = None) -> None:
        self._sums = {name: (float(total), float(weight)) for name, (total, weight) in (sums or {}).items()}
        self._pending: list[tuple[str, Any, int]] = []
        self._open: list[tuple[str, Any]] = []

    def add(self, values: Mapping[str, Any]) -> None:
        self._open += values.items()

    def weigh(self, examples: int) -> None:
        """End a step of so many examples."""
        self._pending += [(name, value, examples) for name, value in self._open]
        self._open = []

    def values(self) -> dict[str, float]:
        """Return the means so far, by name.

        Raises:
            NameplateError: a value is not a single number.
        """
        for name, value, examples in self._pending:
            total, weight = self._sums.get(name, (0.0, 0.0))
            self._sums[name] = (total + _number(name, value) * examples, weight + examples)
        self._pending = []
        return {name: total / weight for name, (total, weight) in self._sums.items()}

    def plain(self) -> dict[str, list[float]]:
        self.values()
        return {name: list(pair) for name, pair in self._sums.items()}


def _number(name: str, value: Any) -> float:
    array = np.asarray(keras.ops.convert_to_numpy(value))
    if array.size != 1:
        raise NameplateError(f"record({name}=...): an array of shape {array.shape}; record a single number")
    return float(array.reshape(()))


def _variable(each: Any) -> keras.Variable:
    return each.state if isinstance(each, keras.random.SeedGenerator) else each


def _by_key(models: Mapping[str, Any], optimizers: Optimizers | None) -> dict[str, keras.Optimizer]:
    if isinstance(optimizers, Mapping):
        return dict(optimizers)
    if optimizers is not None:
        return {next(iter(models)): optimizers} if len(models) == 1 else {"": optimizers}
    own = {key: getattr(model, "optimizer", None) for key, model in models.items()}
    return {key: optimizer for key, optimizer in own.items() if optimizer is not None}


def _require_usable(models: Mapping[str, Any], optimizers: Mapping[str, Any]) -> None:
    """Raise `NameplateError` with every model and optimizer that cannot be trained under its key."""
    problems = []
    for key, model in models.items():
        of = f"models[{key!r}]" if key else "models"
        if not isinstance(model, keras.Model):
            problems.append(f"{of}: {type(model).__name__} is not a keras.Model")
        elif not model.built:
            problems.append(f"{of}: {model.name!r} is not built; call it, or model.build(input_shape), first")
        if key and (fault := names.fault(key)):
            problems.append(f"{of}: {fault}")
    for key, optimizer in optimizers.items():
        if key not in models:
            problems.append(f"optimizers[{key!r}]: no model has this key; there are {', '.join(map(repr, models))}")
        if not isinstance(optimizer, keras.Optimizer):
            problems.append(f"optimizers[{key!r}]: {type(optimizer).__name__} is not a keras.Optimizer")
    if not models:
        problems.append("models: there are none")
    if problems:
        raise NameplateError("\n".join(problems))
