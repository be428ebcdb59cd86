"""What a run tells to whoever watches it: plain numbers at its events."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

import keras
import tensorflow as tf
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nameplate.checkpoint import durable
from nameplate.checkpoint.errors import explained
from nameplate.training.console import Screen, in_words
from nameplate.training.run_directory import aside


@dataclass(frozen=True)
class Record:
    """What was measured up to a step."""

    step: int  # steps done, over the whole run
    epoch: int  # index of the epoch that the step belongs to
    values: Mapping[str, float]  # metrics since the epoch's beginning, and what concerns the step
    of_epoch: bool  # the epoch is complete, validation included


@dataclass(frozen=True)
class RunLength:
    """How far a run has to go."""

    first_step: int  # steps done before this process began
    total_steps: int  # steps of the whole run
    steps_per_epoch: int


class Observer:
    """Told what happens; each method does nothing until a subclass says otherwise."""

    every_steps: int | None = None  # so often `advanced` is told of just that step, not only of those between calls
    at_steps: Sequence[int] = ()  # and at these; known when `began` has returned

    def began(self, model: keras.Model, run_length: RunLength) -> None:
        """Hear that training begins or goes on."""

    def advanced(self, step: int) -> None:
        """Hear that the run has come to this step; nothing was measured."""

    def recorded(self, record: Record) -> None:
        """Hear what was measured."""

    def ended(self) -> None:
        """Hear that this process trains no more, however it came to its end."""


_READERS = ("xprof", "tensorboard_plugin_profile")  # what shows profiles in TensorBoard, under its new and old name


class Profile(Observer):
    """Records the steps after `after` of this process; the trace is `plugins/profile/` under the directory.

    A profile that cannot be recorded, or of which nothing is left, is said and ends no run.
    """

    def __init__(self, directory: Path, *, after: int, steps: int, say: Callable[[str], None]) -> None:
        self._directory, self._after, self._steps, self._say = directory, after, steps, say
        self._since: int | None = None  # the step at which the running profile began

    def began(self, model: keras.Model, run_length: RunLength) -> None:
        """Choose the steps; where the run has fewer left, its last ones."""
        left = run_length.total_steps - run_length.first_step
        first = run_length.first_step + max(min(self._after, left - self._steps), 0)
        self.at_steps = (first, first + self._steps)
        self._last = run_length.first_step
        self.advanced(run_length.first_step)

    def advanced(self, step: int) -> None:
        """Begin or end at its step."""
        self._last = step
        if step == self.at_steps[0]:
            self._start(step)
        elif step == self.at_steps[1]:
            self._stop(step)

    def ended(self) -> None:
        """End what a run that stopped early has left running."""
        self._stop(self._last)

    def _start(self, step: int) -> None:
        try:
            tf.profiler.experimental.start(str(self._directory))
        except tf.errors.OpError as error:  # another profiler runs in this process, or none can
            self._say(f"log.profile_steps: no profile: {error.message}")
        else:
            self._since = step

    def _stop(self, step: int) -> None:
        if self._since is None:
            return
        since, self._since = self._since, None
        try:
            tf.profiler.experimental.stop()
        except tf.errors.OpError as error:
            self._say(f"log.profile_steps: no profile: {error.message}")
            return
        reader = "" if any(map(find_spec, _READERS)) else " after `pip install xprof`"
        self._say(f"profile of steps {since + 1} to {step} in {self._directory}; TensorBoard shows it{reader}")


_NOT_SHOWN = ("learning_rate", "step_loss")  # in the files, not on every line


class ShowProgress(Observer):
    """Shows where the run stands."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._bar: Progress | None = None

    def began(self, model: keras.Model, run_length: RunLength) -> None:
        """Start the bar where there is a terminal."""
        self._run_length = run_length
        if not self._screen.is_terminal:
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=self._screen.console, transient=True)
        self._task = self._bar.add_task("training", total=run_length.total_steps, completed=run_length.first_step)
        self._bar.start()

    def advanced(self, step: int) -> None:
        """Move the bar."""
        if self._bar:
            self._bar.update(self._task, completed=step)

    def recorded(self, record: Record) -> None:
        """Write a line an epoch; between epochs only where there is no bar to look at."""
        epochs = -(-self._run_length.total_steps // self._run_length.steps_per_epoch)
        shown = {name: value for name, value in record.values.items() if name not in _NOT_SHOWN}
        if record.of_epoch:
            self._screen.say(f"epoch {record.epoch + 1}/{epochs}  step {record.step}  {in_words(shown)}")
        elif self._bar:
            self._bar.update(self._task, description=in_words(dict(list(shown.items())[:2])))
        else:
            self._screen.say(f"step {record.step}/{self._run_length.total_steps}  {in_words(shown)}")

    def ended(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()


class JsonLines(Observer):
    """Appends records to a file; what a killed process wrote past its last checkpoint is taken back on resume."""

    def __init__(self, path: Path, *, say: Callable[[str], None] = print) -> None:
        self._path, self._say = path, say
        self._file: TextIO | None = None

    def began(self, model: keras.Model, run_length: RunLength) -> None:
        """Open the file, without what comes after the step where the run goes on.

        A file with lines that cannot be read is set aside whole, and its other lines go on.
        """
        with explained("Writing", self._path):
            if self._path.exists():
                self._take_back(run_length.first_step)
            self._file = self._path.open("a", encoding="utf-8")

    def _take_back(self, step: int) -> None:
        *lines, last = self._path.read_bytes().split(b"\n")
        if _step(last) is not None:  # else nothing, or what a kill cut short
            lines.append(last)
        steps = [_step(line) for line in lines]
        kept = [line for line, at in zip(lines, steps, strict=True) if at is not None and at <= step]
        text = b"".join(line + b"\n" for line in kept)
        odd = [number for number, at in enumerate(steps, 1) if at is None]
        if odd:
            copy = aside(self._path)
            durable.write_file(copy, self._path.read_bytes())
            several = f"lines {', '.join(map(str, odd[:5]))}" if len(odd) > 1 else f"line {odd[0]}"
            more = f" and {len(odd) - 5} more" if len(odd) > 5 else ""
            self._say(f"{self._path.name}: {several}{more} cannot be read; left out, and all of it is in {copy.name}")
        durable.replace_file(self._path, text)

    def recorded(self, record: Record) -> None:
        """Write one line, at once."""
        assert self._file is not None
        head = {"step": record.step, "epoch": record.epoch, "kind": "epoch" if record.of_epoch else "train"}
        self._file.write(json.dumps(head | dict(record.values)) + "\n")
        self._file.flush()

    def ended(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _step(line: bytes) -> int | None:
    """Return the step of a line, None where it is not a record."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return step if isinstance(step, int) and step >= 0 else None
