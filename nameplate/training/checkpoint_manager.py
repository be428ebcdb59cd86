"""The checkpoints of a run: when one is saved, what it holds, which is the best, and what a resume restores."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import keras
import numpy as np

from nameplate import checkpoint as store
from nameplate.engine.statistics import in_host_memory
from nameplate.errors import NameplateError, NotFiniteError, worded
from nameplate.io.automatic_pairs import RENUMBERED
from nameplate.training.callbacks import CallbackState
from nameplate.training.config import CheckpointConfig
from nameplate.training.config_diff import ConfigDiff, resets_for
from nameplate.training.console import tool
from nameplate.training.progress import Progress, Texts, progress_of
from nameplate.training.state import Arrays, ResumeError, TrainState
from nameplate.weights.plan import forms_of

_SHOWN = 5


def not_finite(weights: Mapping[str, np.ndarray], slots: Mapping[str, np.ndarray], trained: Collection[str]) -> str:
    """Return a message about arrays whose values must not be saved, or an empty string.

    A trained weight must be finite. Other weights and slots may hold infinities on purpose, e.g. the mask of an
    attention. NaN is always wrong.
    """
    wrong = [name for name, array in weights.items() if _is_wrong(array, infinite=name in trained)]
    wrong += [name for name, array in slots.items() if _is_wrong(array, infinite=False)]
    if not wrong:
        return ""
    more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    return f"{', '.join(wrong[:_SHOWN])}{more} hold{'s' * (len(wrong) == 1)} NaN or infinite values"


def _is_wrong(array: np.ndarray, *, infinite: bool) -> bool:
    """Say whether an array holds NaN or, with `infinite`, an infinity."""
    if array.dtype.kind in "biuSU":
        return False
    # A sum needs one pass and no temporary; if it is finite, so are its terms. An infinite one may have overflowed.
    with np.errstate(all="ignore"):
        if np.isfinite(array.sum()):
            return False
    return bool((~np.isfinite(array) if infinite else np.isnan(array)).any())


Say = Callable[[str], None]
Agree = Callable[[store.Checkpoint, str], ConfigDiff]  # (checkpoint, its name for messages) -> diff, or an error


class Checkpoints:
    """The checkpoints of one run: saves, restores and prunes them."""

    def __init__(
        self,
        directory: Path,
        config: CheckpointConfig,
        *,
        state: TrainState,
        texts: Texts,
        monitor: str,
        callbacks: Sequence[keras.callbacks.Callback],
        named_callbacks: Mapping[str, keras.callbacks.Callback] | None = None,
        say: Say,
        agree: Agree | None = None,
        writes: bool = True,
    ) -> None:
        """Create the checkpoints of a run; `writes` is false in every worker but the chief."""
        self.directory, self.config, self.monitor = directory, config, monitor
        self._state, self._texts, self.say, self._agree = state, texts, say, agree
        self._callbacks = CallbackState(callbacks, named_callbacks)
        self._writes = writes
        self._upwards = config.improves_upwards(monitor)
        self._mode = "max" if self._upwards else "min"
        self._reported: set[Path] = set()  # damaged checkpoints that were skipped
        self._verified: set[Path] = set()  # checkpoints that this process has written, or read to the last byte
        self._writer = ThreadPoolExecutor(1, "checkpoint") if config.async_save else None
        self._pending: Future[Path] | None = None
        self._resumed_from: Path | None = None
        self._origins: Mapping[str, Any] = texts.about.get("origins", {})
        self._callback_state: tuple[Mapping[str, Any], Mapping[str, np.ndarray]] = ({}, {})
        self.last: Path | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except (NameplateError, MemoryError) as late:
            if error is None:
                raise
            self.say(f"the save in progress failed too: {late}")  # the error that ended the run takes precedence

    def restore(self) -> Progress:
        """Restore the newest good checkpoint and return how far the run has come; a new run is at its start.

        Skipped damaged checkpoints and differences between configurations are reported.

        Raises:
            ResumeError: the checkpoint belongs to another model.
            ConfigDiffError: a setting that affects the result differs from the checkpoint's.
            StoreError: there are checkpoints, but none is good.
        """
        self._state.require_storable()
        if self._writes:
            store.sweep_leftovers(self.directory)
        progress = store.load_newest(self.directory, self._load, self._report_damage)
        for path, lost in store.lacking(self.directory).items():
            if path not in self._reported:
                self.say(str(lost))
        if self._writes and progress is not None:
            self._point_to_best()
        return progress or Progress()

    def restore_callbacks(self) -> None:
        """Restore the state of the callbacks. Call it after `on_train_begin`, where they reset themselves."""
        self._callbacks.restore(*self._callback_state)

    def due(self, step: int) -> bool:
        """Say whether a save is due at this step, anywhere in an epoch."""
        return bool(self.config.every_steps) and step % (self.config.every_steps or 1) == 0

    def due_after_epoch(self, epoch: int) -> bool:
        """Say whether a save is due at the end of this epoch, counted from 0."""
        return bool(self.config.every_epochs) and (epoch + 1) % (self.config.every_epochs or 1) == 0

    def better(self, values: Mapping[str, float], best: float | None) -> float | None:
        """Return the best monitored value so far, these values included; NaN and infinity never are."""
        value = values.get(self.monitor)
        if value is None or not math.isfinite(value):
            return best
        if best is None:
            return value
        return max(best, value) if self._upwards else min(best, value)

    def save(
        self,
        progress: Progress,
        values: Mapping[str, float],
        *,
        stage: Mapping[str, Any] | None = None,
        partial: bool = False,
    ) -> None:
        """Save the state of the run.

        With `async_save` this returns as soon as everything is copied to host memory. Errors of writing are raised at
        the next step or by `close`.

        Args:
            progress: how far the run has come.
            values: what has been measured there.
            stage: describes the stage that ends there; its checkpoint is never pruned.
            partial: the values are those of a part of an epoch, so they do not count for the best checkpoint.

        Raises:
            NotFiniteError: a weight is NaN or infinite; nothing is saved.
            StoreError: writing failed.
        """
        self.wait()
        with _enough_memory():
            arrays = self._state.capture()
        if not self._writes:
            return
        plain, remembered = self._callbacks.capture()
        snapshot = self._snapshot(progress, values, arrays, plain, remembered)
        if stage is not None:
            snapshot = replace(snapshot, about={**snapshot.about, store.STAGE: dict(stage)})
        if partial:
            snapshot = replace(snapshot, about={**snapshot.about, store.PARTIAL: True})
        if self._writer is None:
            self._write(snapshot)
        else:
            self._pending = self._writer.submit(self._write, snapshot)

    def wait(self) -> None:
        """Wait for the save in progress, and raise its error."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def raise_failed(self) -> None:
        """Raise the error of a failed background save, without waiting for one in progress."""
        if self._pending is not None and self._pending.done() and self._pending.exception() is not None:
            self.wait()

    def close(self) -> None:
        """Finish the save in progress, and raise its error."""
        try:
            self.wait()
        finally:
            if self._writer is not None:
                self._writer.shutdown(wait=True)

    def saved(self) -> str:
        """Wait for the save in progress, and return a message about the last good checkpoint."""
        try:
            self.wait()
        except (NameplateError, MemoryError) as error:
            self.say(f"the save in progress failed: {error}")
        return f"the last good checkpoint is {self.last}" if self.last else "no checkpoint was saved yet"

    def _write(self, snapshot: store.Snapshot) -> Path:
        wrong = not_finite(snapshot.weights, snapshot.optimizer, self._state.trained)
        if wrong:
            safe = f"the last good checkpoint is {self.last}" if self.last else "no checkpoint was saved yet"
            raise NotFiniteError(snapshot.step, f"after step {snapshot.step} {wrong}", safe)
        with _enough_memory():
            path = store.save(self.directory, snapshot)
        store.point(self.directory, "latest", path)
        self._verified.add(path)
        self._point_to_best()
        self.last = path
        deleted = store.keep(
            self.directory,
            last=self.config.keep_last,
            best=self.config.keep_best,
            metric=self.monitor,
            mode=self._mode,
            every=self.config.keep_every,
            protect=[self._resumed_from] if self._resumed_from else [],
        )
        for failed, error in deleted.failed.items():
            self.say(f"the old checkpoint {failed.name} could not be deleted: {error}")
        return path

    def _point_to_best(self) -> None:
        """Point `best` to the best good checkpoint; damaged ones are skipped and reported."""
        best = store.best_of(self.directory, metric=self.monitor, mode=self._mode, good=self._is_good)
        try:
            pointed = store.resolve(self.directory, "best")
        except store.DamagedError:  # replaced below, or removed
            pointed = None
            (self.directory / "best").unlink(missing_ok=True)
        if best is not None and best != pointed:
            store.point(self.directory, "best", best)
        elif best is None and pointed is not None and not self._is_good(pointed):
            (self.directory / "best").unlink()

    def _is_good(self, path: Path) -> bool:
        if path not in self._verified:
            if damages := store.verify(path):
                self.say(f"{path.name} is damaged and cannot be the best: {damages[0]}")
                return False
            self._verified.add(path)
        return True

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
                "origins": self._origins,
                "history": progress.history,
                "finished": progress.finished,
                "rollbacks": {"count": progress.rollbacks, "passed_over": list(progress.passed_over)},
                "best": {
                    "monitor": self.monitor,
                    "mode": self._mode,
                    "value": None if progress.best is None else repr(progress.best),
                },
                "callbacks": plain,
            },
            classes=self._texts.classes,
        )

    def _load(self, checkpoint: store.Checkpoint) -> Progress:
        with checkpoint:
            self._refuse_other_model(checkpoint)
            where = f"{self.directory.parent.name} {checkpoint.path.name}"
            diff = self._agree(checkpoint, where) if self._agree else ConfigDiff(())
            weights, slots = checkpoint.weights.load(in_host_memory), checkpoint.optimizer.load(in_host_memory)
            state = checkpoint.state.load()
        remembered = {name: state.pop(name) for name in list(state) if name.startswith("callbacks/")}
        notes = self._state.restore(weights, slots, state, resets=resets_for(diff))
        for line in notes:
            self.say(f"  {line}")
        self._callback_state = (checkpoint.manifest.about["callbacks"], remembered)
        self._origins = checkpoint.manifest.about["origins"]  # recorded when the run began
        self._resumed_from = self.last = checkpoint.path
        return progress_of(checkpoint.manifest, self.monitor)

    def _refuse_other_model(self, checkpoint: store.Checkpoint) -> None:
        """Raise `ResumeError` if the weights differ, with obvious rename rules that would bridge the difference."""
        forms = forms_of(checkpoint.weights)
        problems = self._state.weight_problems(forms)
        if not problems:
            return
        rules = self._state.bridges(forms)
        run = self.directory.parent
        goes_on = worded(
            keys=f"run={run.name}_renamed and resume_changed=[model]",
            arguments=f"run={f'{run}_renamed'!r} and resume_changed=['model']",
        )
        bridge = [
            "It would fit under other names. Write it with those into a new run:",
            f"  {tool('ckpt')} {shlex.join(['rename', str(run), f'{run}_renamed', *rules])}",
            f"and continue there, with {goes_on}.",
        ]
        head = f"{run.name} {checkpoint.path.name} belongs to another model:"
        lines = [*(f"  {problem}" for problem in problems), *(bridge if rules else [])]
        if self._state.differs_in_automatic_names(forms):
            lines.append(_MADE_UP)
        raise ResumeError("\n".join([head, *lines]))

    def _report_damage(self, path: Path, error: Exception) -> None:
        self._reported.add(path)
        self.say(f"{path.name} is damaged and skipped; the one before it is used: {error}")


_MADE_UP = (
    f"All that differs are names that Keras made up, {RENUMBERED}: call keras.utils.clear_session() before "
    "that, restart the script or the notebook, or name the layers."
)


@contextmanager
def _enough_memory() -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise NameplateError(
            f"out of memory on the host while saving ({error}); earlier checkpoints are intact. "
            "A save needs as much memory again as the variables of the model and its optimizer."
        ) from error
