"""When a run saves, what it keeps, and from where it goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from models import store
from trainer.callbacks.memory import recall, remember
from trainer.config.checkpoint import CheckpointConfig
from trainer.state import Arrays, TrainState

Say = Callable[[str], None]


@dataclass(frozen=True)
class Progress:
    """Where a run stands."""

    step: int = 0  # steps done
    epoch: int = 0  # index of the epoch that the next step belongs to
    position: int = 0  # examples of that epoch consumed
    finished: bool = False  # nothing is left to train, e.g. because it stopped early
    history: Mapping[str, Any] = field(default_factory=dict)  # Keras' History: epochs, and values by name
    best: float | None = None  # the best monitored value so far


@dataclass(frozen=True)
class Texts:
    """What a checkpoint holds beside arrays, the same for the whole run."""

    model: str  # the Keras configuration, JSON
    config: str  # the resolved configuration, YAML
    classes: Mapping[str, str]  # variable name -> class of its layer
    about: Mapping[str, Any]  # provenance and versions


class Checkpoints:
    """The checkpoints of one run: restored from, saved to, kept and pruned."""

    def __init__(
        self,
        directory: Path,
        config: CheckpointConfig,
        *,
        state: TrainState,
        texts: Texts,
        monitor: str,
        callbacks: Sequence[keras.callbacks.Callback],
        say: Say,
    ) -> None:
        self.directory, self.config, self.monitor = directory, config, monitor
        self._state, self._texts, self._callbacks, self._say = state, texts, callbacks, say
        self._upwards = config.improves_upwards(monitor)
        self._writer = ThreadPoolExecutor(1, "checkpoint") if config.async_save else None
        self._pending: Future[Path] | None = None
        self._resumed_from: Path | None = None
        self._memory: tuple[Mapping[str, Any], Mapping[str, np.ndarray]] = ({}, {})
        self.last: Path | None = None

    def restore(self) -> Progress:
        """Bring the job to where the newest good checkpoint has it; a new run stands at the beginning.

        A damaged checkpoint is passed over aloud.

        Raises:
            ResumeError: the checkpoint is of another model, optimizer or precision.
            StoreError: there are checkpoints and none is good.
        """
        self._state.require_storable()
        store.sweep_leftovers(self.directory)
        found = store.load_newest(self.directory, self._load, self._report_damage)
        return found or Progress()

    def remind(self) -> None:
        """Give the callbacks what they remembered at the restored checkpoint."""
        recall(self._callbacks, *self._memory)

    def due(self, step: int) -> bool:
        """Say whether a save belongs at this step, wherever in an epoch it is."""
        return bool(self.config.every_steps) and step % (self.config.every_steps or 1) == 0

    def due_after_epoch(self, epoch: int) -> bool:
        """Say whether a save belongs at the end of the epoch of this index."""
        return bool(self.config.every_epochs) and (epoch + 1) % (self.config.every_epochs or 1) == 0

    def better(self, values: Mapping[str, float], best: float | None) -> float | None:
        """Return the better of the best value so far and what was measured; NaN is never better."""
        value = values.get(self.monitor)
        if value is None or math.isnan(value):
            return best
        if best is None:
            return value
        return max(best, value) if self._upwards else min(best, value)

    def save(self, progress: Progress, values: Mapping[str, float]) -> None:
        """Save where the job stands; `values` are what was measured there.

        Under `async_save` this returns when everything is copied to host memory; an error of the writing appears at
        the next save or at `close`.
        """
        self.wait()
        arrays = self._state.capture()
        plain, remembered = remember(self._callbacks)
        snapshot = self._snapshot(progress, values, arrays, plain, remembered)
        is_best = self.monitor in values and values[self.monitor] == progress.best
        if self._writer is None:
            self._write(snapshot, is_best=is_best)
        else:
            self._pending = self._writer.submit(self._write, snapshot, is_best=is_best)

    def wait(self) -> None:
        """Wait for a save under way; raises what went wrong in it."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def failed(self) -> bool:
        """Say whether a background save has ended in an error that nobody has heard of yet."""
        return self._pending is not None and self._pending.done() and self._pending.exception() is not None

    def close(self) -> None:
        """Finish every save; raises what went wrong in the last one."""
        try:
            self.wait()
        finally:
            if self._writer is not None:
                self._writer.shutdown(wait=True)

    def saved(self) -> str:
        """Return in words what is safe on disk."""
        return f"the last good checkpoint is {self.last}" if self.last else "no checkpoint was saved yet"

    def _write(self, snapshot: store.Snapshot, *, is_best: bool) -> Path:
        path = store.save(self.directory, snapshot)
        store.point(self.directory, "latest", path)
        if is_best:
            store.point(self.directory, "best", path)
        self.last = path
        deleted = store.keep(
            self.directory,
            last=self.config.keep_last,
            best=self.config.keep_best,
            metric=self.monitor,
            mode="max" if self._upwards else "min",
            every=self.config.keep_every,
            protect=[self._resumed_from] if self._resumed_from else [],
        )
        for failed, error in deleted.failed.items():
            self._say(f"an old checkpoint stays, {failed.name} could not be deleted: {error}")
        return path

    def _snapshot(
        self,
        progress: Progress,
        values: Mapping[str, float],
        arrays: Mapping[str, Arrays],
        plain: Mapping[str, Any],
        remembered: Mapping[str, np.ndarray],
    ) -> store.Snapshot:
        return store.Snapshot(
            step=progress.step,
            epoch=progress.epoch,
            position=progress.position,
            weights=arrays["weights"],
            optimizer=arrays["optimizer"],
            state=arrays["state"] | dict(remembered),
            metrics=dict(values),
            model=self._texts.model,
            config=self._texts.config,
            about={
                **self._texts.about,
                "history": progress.history,
                "finished": progress.finished,
                "best": {"monitor": self.monitor, "value": None if progress.best is None else repr(progress.best)},
                "callbacks": plain,
            },
            classes=self._texts.classes,
        )

    def _load(self, checkpoint: store.Checkpoint) -> Progress:
        with checkpoint:
            groups = {name: tensors.load() for name, tensors in checkpoint.groups().items()}
            manifest = checkpoint.manifest
        remembered = {name: each for name, each in groups["state"].items() if name.startswith("callbacks/")}
        state = {name: each for name, each in groups["state"].items() if name not in remembered}
        self._state.restore(groups["weights"], groups["optimizer"], state)
        about = manifest.about
        self._memory = (about["callbacks"], remembered)
        self._resumed_from = self.last = checkpoint.path
        best = about["best"]
        kept = best["value"] if best["monitor"] == self.monitor else None
        return Progress(
            step=manifest.step,
            epoch=manifest.epoch,
            position=manifest.position,
            finished=about["finished"],
            history=about["history"],
            best=None if kept is None else float(kept),
        )

    def _report_damage(self, path: Path, error: Exception) -> None:
        self._say(f"{path.name} is damaged and passed over, the one before it is used: {error}")


def model_json(model: keras.Model) -> str:
    """Return the model's configuration as JSON; of a model that has none, its class and why."""
    try:
        return str(model.to_json())
    except (NotImplementedError, TypeError, ValueError) as error:
        return json.dumps({"class_name": type(model).__name__, "config": None, "reason": str(error).splitlines()[0]})
