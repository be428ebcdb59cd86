"""What a training shows: bars and a line an epoch where a person looks on, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
from rich.console import RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn

from nameplate.data.batches import Epochs
from nameplate.data.source import leaves
from nameplate.engine.host_collectives import is_chief, several_workers
from nameplate.training.console import Screen, in_words
from nameplate.training.monitor import numbers
from nameplate.training.observers import Observer, Record, RunLength

_NOT_SHOWN = ("learning_rate", "step_loss")  # in the files, but not on every printed line
_SPEED = "examples_per_second"
_READ_EVERY = 0.4  # seconds between two readings of the metrics for the bar
_DRAWN_EVERY = 0.1  # seconds between two drawings of a bar in a notebook, each of which is a message
_FOLLOWED = 0.25  # of the difference between the end that is shown and the one that the last step suggests


def shows_bar(verbose: bool | int | str) -> bool:
    """Say whether `verbose` asks for a bar, if a person looks on: 1 and "auto" do, 2 for lines alone."""
    return bool(verbose) and verbose != 2


def screen_of_worker() -> Screen:
    """Return the screen of this process; of several workers only the chief's shows anything."""
    return Screen(quiet=several_workers() and not is_chief())


class TimeLeft:
    """The seconds that a run still takes, without jumps.

    The pace is the mean since the first call to the graph, which traces, has returned. What is shown counts down to an
    end that moves towards each new estimate by a part of the difference.
    """

    def __init__(self, total_steps: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the steps of the whole run."""
        self._total, self._clock = total_steps, clock
        self._origin: tuple[int, float] | None = None  # step and time from which the pace is measured
        self._reached = 0.0  # time of the last step
        self._end: float | None = None

    def advanced(self, step: int) -> None:
        """Note that the run has reached a step."""
        self._reached = now = self._clock()
        if self._origin is None or step <= self._origin[0]:
            self._origin = (step, now)
            return
        first, began = self._origin
        end = now + (self._total - step) * (now - began) / (step - first)
        self._end = end if self._end is None else self._end + _FOLLOWED * (end - self._end)

    def exclude(self) -> None:
        """Leave the time since the last step out of the pace: it was needed once, e.g. to trace the validation."""
        if self._origin is not None:
            pause = self._clock() - self._reached
            self._origin = (self._origin[0], self._origin[1] + pause)
            self._end = None if self._end is None else self._end + pause

    def seconds(self) -> float | None:
        """Return the seconds left; None until the pace is known."""
        return None if self._end is None else max(0.0, self._end - self._clock())


class ShowProgress(Observer):
    """Shows the progress of a training on the screen."""

    def __init__(self, screen: Screen, *, bar: bool = True) -> None:
        """Take whether there are bars, if a person looks on."""
        self._screen, self._shows_bar = screen, bar and (screen.is_terminal or screen.is_notebook)
        self._bar: Progress | _NotebookBars | None = None
        self._read_at = 0.0

    def began(self, model: keras.Model, run_length: RunLength) -> None:
        """Start the bars."""
        self._run_length, self._is_first_epoch, self._is_compiling = run_length, True, True
        self._epochs = run_length.epochs.at(run_length.total_steps - 1).index + 1
        if not self._shows_bar:
            return
        self._left = TimeLeft(run_length.total_steps)
        self._bar = _bars(self._screen, self._left, several=self._epochs > 1)
        self._of_epoch = self._bar.add_task("", note="compiling")
        if self._epochs > 1:
            self._of_run = self._bar.add_task("run", total=run_length.total_steps)
        self._move(run_length.first_step)
        self._bar.start()

    def advanced(self, step: int) -> None:
        """Move the bars."""
        if self._bar:
            self._left.advanced(step)
            if self._is_compiling:
                self._bar.update(self._of_epoch, note="")
            self._is_compiling = False
            self._move(step)

    def recorded(self, record: Record) -> None:
        """Write a line an epoch; between epochs only if there are no bars."""
        shown = {name: value for name, value in record.values.items() if name not in _NOT_SHOWN}
        if record.of_epoch:
            if self._bar and self._is_first_epoch:
                self._left.exclude()
            self._is_first_epoch = False
            head = f"epoch {record.epoch + 1}/{self._epochs}"
            if self._bar:
                line = fitted(head, shown, best=record.best, width=self._screen.console.width)
                self._bar.print(line, markup=False)
            else:
                self._screen.say(f"{head}  step {record.step}  {in_words(shown, best=record.best)}")
        elif self._bar:
            self._bar.update(self._of_epoch, note=in_words(dict(list(shown.items())[:2])))
        else:
            self._screen.say(f"step {record.step}/{self._run_length.total_steps}  {in_words(shown)}")

    @property
    def wants_values(self) -> bool:
        """Say whether to read the metrics for the bar; not of several workers, which must read them together."""
        return self._bar is not None and time.monotonic() - self._read_at > _READ_EVERY and not several_workers()

    def measured(self, epoch: int, values: Mapping[str, float]) -> None:
        """Show the first two values of the epoch in progress."""
        self._read_at = time.monotonic()
        if self._bar:
            self._bar.update(self._of_epoch, note=in_words(dict(list(values.items())[:2])))

    def ended(self) -> None:
        """Remove the bars."""
        bar, self._bar = self._bar, None
        if bar:
            bar.stop()

    def _move(self, step: int) -> None:
        """Show that the run has reached a step; the end of an epoch belongs to it, not to the next one."""
        assert self._bar is not None
        epoch = self._run_length.epochs.at(max(step - 1, self._run_length.first_step))
        size = min(epoch.end, self._run_length.total_steps) - epoch.first
        name = f"epoch {epoch.index + 1}/{self._epochs}"
        self._bar.update(self._of_epoch, description=name, total=size, completed=step - epoch.first)
        if self._epochs > 1:
            self._bar.update(self._of_run, completed=step)


class _Note(ProgressColumn):
    """What is measured or done beside the bar of the epoch, the time left beside the run's."""

    def __init__(self, left: TimeLeft, *, several: bool) -> None:
        super().__init__()
        self._time, self._several = left, several

    def render(self, task: Task) -> RenderableType:
        note = task.fields.get("note")
        if note or (self._several and note is not None):
            return str(note)
        seconds = self._time.seconds()
        return "" if seconds is None else f"{clock(seconds)} left"


def clock(seconds: float) -> str:
    """Return a time as people read it: `0:07`, `12:30`, `3:05:00`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def fitted(head: str, values: dict[str, float], *, best: str | None, width: int) -> str:
    """Return the line of an epoch, each validation beside what it validates, without the values that do not fit."""
    fields = []
    for name, value in values.items():
        held_out = f"val_{name}"
        if name == _SPEED or (name.startswith("val_") and name.removeprefix("val_") in values):
            continue
        field = in_words({name: value}, best=best)
        if held_out in values:
            field += f" ({in_words({'val': values[held_out]})}{', best' * (best == held_out)})"
        fields.append(field)
    if _SPEED in values:
        fields.append(f"{values[_SPEED]:.0f}/s")
    line = head
    for place, field in enumerate(fields):
        if place and len(line) + 2 + len(field) > width - (2 if place < len(fields) - 1 else 0):
            return line if field.endswith("/s") else f"{line} …"
        line += f"  {field}"
    return line


def _bars(screen: Screen, left: TimeLeft, *, several: bool) -> Progress | _NotebookBars:
    if screen.is_notebook:
        return _NotebookBars(left)
    columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), _Note(left, several=several))
    return Progress(*columns, console=screen.console, transient=True)


class _NotebookBars:
    """What rich's `Progress` is for a terminal, as one line that is overwritten; rich would need widgets."""

    def __init__(self, left: TimeLeft) -> None:
        self._left, self._shown, self._drawn_at = left, 0, 0.0
        self._tasks: list[dict[str, Any]] = []

    def add_task(self, description: str, **fields: Any) -> TaskID:
        self._tasks.append({"description": description, "completed": 0, "total": None, "note": ""} | fields)
        return TaskID(len(self._tasks) - 1)

    def start(self) -> None:
        self._draw()

    def update(self, task: TaskID, **fields: Any) -> None:
        self._tasks[task] |= fields
        if time.monotonic() - self._drawn_at > _DRAWN_EVERY:
            self._draw()

    def print(self, line: str, *, markup: bool) -> None:
        del markup
        self._hide()
        print(line)

    def stop(self) -> None:
        self._hide()
        sys.stdout.flush()

    def _hide(self) -> None:
        sys.stdout.write("\r" + " " * self._shown + "\r")
        self._shown = 0

    def _draw(self) -> None:
        task, seconds = self._tasks[0], self._left.seconds()
        filled = int(24 * task["completed"] / task["total"]) if task["total"] else 0
        bar = "━" * filled + " " * (24 - filled)
        parts = [f"{task['description']} {bar} {task['completed']}/{task['total'] or '?'}", task["note"]]
        parts += [] if seconds is None else [f"{clock(seconds)} left"]
        line = "  ".join(part for part in parts if part)
        sys.stdout.write("\r" + line.ljust(self._shown))
        sys.stdout.flush()
        self._shown, self._drawn_at = len(line), time.monotonic()


class ShownByBatch(keras.callbacks.Callback):
    """Shows a training that Keras' own loop runs."""

    def __init__(self, verbose: bool | int | str, *, initial_epoch: int) -> None:
        super().__init__()
        self._verbose, self._epoch = verbose, initial_epoch
        self._done = self._before = 0
        self._show: ShowProgress | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Show the bar, if it is known how long it is."""
        self._steps, epochs = self.params["steps"], self.params["epochs"]
        self._show = ShowProgress(screen_of_worker(), bar=bool(self._steps) and shows_bar(self._verbose))
        of_pass = Epochs(self._steps or 1)
        first, end = (of_pass.number(epoch).first for epoch in (self._epoch, epochs))
        self._show.began(self.model, RunLength(first, max(end, 1), of_pass))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Note the epoch, and the steps before it."""
        self._epoch, self._before = epoch, self._done

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Move the bar."""
        self._done = self._before + batch + 1
        if self._show and self._steps:
            self._show.advanced(self._epoch * self._steps + min(batch + 1, self._steps))
            if self._show.wants_values:
                self._show.measured(self._epoch, numbers(logs or {}))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write the epoch's line."""
        if self._show:
            self._show.recorded(Record(self._done, epoch, numbers(logs or {}), of_epoch=True))

    def ended(self) -> None:
        """Remove the bar, however the training ended."""
        if self._show:
            self._show.ended()


class ShowPass(keras.callbacks.Callback):
    """Shows an evaluation or prediction; a callback where Keras' own loop runs it."""

    def __init__(self, verbose: bool | int | str, what: str, steps: int | None) -> None:
        super().__init__()
        self.verbose, self._what, self._steps = verbose, what, steps
        self.screen = screen_of_worker()
        self._bar: Progress | _NotebookBars | None = None

    @property
    def has_bar(self) -> bool:
        """Say whether a bar is to be moved."""
        return self._bar is not None

    def advanced(self, step: int) -> None:
        """Move the bar."""
        if self._bar:
            self._left.advanced(step)
            self._bar.update(self._task, description=self._what, note="", completed=step)

    def predicted(self, outputs: Any) -> None:
        """Write a line about the outputs of a prediction, if there was no bar."""
        if self._lines:
            examples, seconds = leaves(outputs)[0].shape[0], time.monotonic() - self._began
            self.screen.say(f"predicted {examples} examples in {seconds:.1f} s")

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """Move the bar."""
        self.advanced(batch + 1)

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        """Move the bar."""
        self.advanced(batch + 1)

    def __enter__(self) -> ShowPass:
        self._began, self._left = time.monotonic(), TimeLeft(self._steps or 0)
        watched = self.screen.is_terminal or self.screen.is_notebook
        if self._steps and watched and shows_bar(self.verbose):
            self._bar = _bars(self.screen, self._left, several=False)
            self._task = self._bar.add_task(self._what, note="compiling", total=self._steps)
            self._bar.start()
        self._lines = bool(self.verbose) and self._bar is None
        return self

    def __exit__(self, *_: object) -> None:
        bar, self._bar = self._bar, None
        if bar:
            bar.stop()
