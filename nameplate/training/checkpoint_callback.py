"""Callbacks for Keras' own `model.fit`: `nameplate.callbacks.Checkpoint`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from nameplate.arguments import checked
from nameplate.engine.private import start_at_epoch
from nameplate.errors import NameplateError, StoppedError
from nameplate.formats.policy_file import AnyPolicy
from nameplate.training.checkpoint_manager import Checkpoints
from nameplate.training.config import CheckpointConfig, LogConfig
from nameplate.training.layer_table import classes_by_variable
from nameplate.training.monitor import numbers
from nameplate.training.progress import Progress, Texts, about, model_json
from nameplate.training.script_run import ScriptRun, run_options
from nameplate.training.script_settings import CALL, as_text, objective_settings, optimizer_settings
from nameplate.training.state import train_state

_open: dict[Path, ScriptRun] = {}  # Keras calls no hook when `fit` fails: the next one with the same run closes it


class Checkpoint(keras.callbacks.Callback):
    """Named, hashed, atomic checkpoints of a `model.fit`, from which the same script resumes.

    Restored by name are weights, slots, seeds, metrics and the History. `model.fit` can start only at an epoch: where a
    run was stopped within one, that epoch starts again from the last checkpoint before it ended. `nameplate.fit` with
    `run=` goes on within the epoch.
    """

    @checked
    def __init__(
        self,
        run: str | os.PathLike[str],
        checkpoint: CheckpointConfig | None = None,
        *,
        naming: AnyPolicy = "strict",
        resume: bool = True,
        resume_changed: Sequence[str] = (),
        verbose: bool | int = 1,
    ) -> None:
        """Take where to save, and how.

        Args:
            run: directory of the run, e.g. "runs/mine".
            checkpoint: `nameplate.Checkpoint(every_steps=..., keep_last=..., monitor=...)`.
            naming: policy that the names must satisfy: strict, report, off, a `nameplate.Policy`, or a file of one.
            resume: False refuses a directory that has checkpoints.
            resume_changed: settings that may differ from those of the checkpoint, e.g. ["optimizer"].
            verbose: 0 says nothing of a resume.

        Raises:
            NameplateError: with every argument that cannot be used.
        """
        super().__init__()
        options = run_options(
            run,
            checkpoint=checkpoint,
            log=LogConfig(tensorboard=False, layer_table=False),
            naming=naming,
            resume=resume,
            resume_changed=resume_changed,
            verbose=verbose,
        )
        if options is None:
            raise NameplateError("Checkpoint(None): give the path of a directory, e.g. 'runs/mine'")
        self._options = options
        self._progress, self._within, self._saved_at = Progress(), 0, 0  # steps done; of the epoch; at the last save
        self._checkpoints: Checkpoints  # made when the training begins, as is the run

    def on_train_begin(self, logs: Any = None) -> None:
        """Enter the run's directory, and restore its last good checkpoint."""
        path = self._options.path.absolute()
        if path in _open:
            _open.pop(path).__exit__(None, None, None)
        self._run = _open[path] = ScriptRun(self._options).__enter__()
        try:
            self._run.optimizers = [self.model.optimizer]
            self._run.require_names(self.model)
            self._restore()
        except BaseException as error:
            self._leave(error)
            raise

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Save if a checkpoint is due at this step, or a signal came."""
        done = self._progress.step + batch + 1 - self._within
        self._within = batch + 1
        self._progress = replace(self._progress, step=done)
        if self._run.stop.received is not None:
            self._save(logs, partial=True)
            self._stop()
        elif self._checkpoints.due(done):
            self._save(logs, partial=True)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Note what was measured, and save if a checkpoint is due."""
        self._within = 0
        values = numbers(logs or {})
        best = self._checkpoints.better(values, self._progress.best)
        past = self._progress.history
        series = {name: [*before] for name, before in past.get("values", {}).items()}
        for name, value in values.items():
            series.setdefault(name, []).append(float(value))
        history = {"epoch": [*past.get("epoch", []), epoch], "values": series}
        self._progress = replace(self._progress, epoch=epoch + 1, best=best, history=history)
        if self._checkpoints.due_after_epoch(epoch):
            self._save(values)

    def on_train_end(self, logs: Any = None) -> None:
        """Save the end, and leave the directory."""
        if self._saved_at != self._progress.step:
            self._save(logs)
        self._checkpoints.close()
        self._run.report(self._progress, self._checkpoints)
        self._leave(None)

    def _restore(self) -> None:
        model = self.model
        settings = {
            CALL: "nameplate.callbacks.Checkpoint",
            "fit": {"epochs": self.params.get("epochs")},
            "optimizer": optimizer_settings(model.optimizer),
            "objective": objective_settings(model),
        }
        texts = Texts(model_json(model), as_text(settings), classes_by_variable(model), about({}))
        monitor = self._options.checkpoint.monitor or "val_loss"
        self._checkpoints = self._run.checkpoints(train_state(model), texts, settings, (), monitor)
        self._progress = self._run.restored(
            self._checkpoints, settings, (self.params.get("epochs") or 0) * (self.params.get("steps") or 0)
        )
        self._within, self._saved_at = 0, self._progress.step
        if self._progress.step:
            start_at_epoch(model, self._progress.epoch)

    def _save(self, logs: Any, *, partial: bool = False) -> None:
        values = {name: float(value) for name, value in numbers(logs or {}).items() if np.ndim(value) == 0}
        self._checkpoints.save(self._progress, values, partial=partial)
        self._saved_at = self._progress.step

    def _stop(self) -> None:
        assert self._run.stop.received is not None
        error = StoppedError(self._run.stop.received, self._progress.step, self._checkpoints.saved())
        self._leave(error)
        raise error

    def _leave(self, error: BaseException | None) -> None:
        _open.pop(self._options.path.absolute(), None)
        self._run.__exit__(None if error is None else type(error), error, None)
