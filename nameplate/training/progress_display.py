"""What a run shows while it trains: bars and a line an epoch on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable

import keras
from rich.console import RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn

from nameplate.training.console import Screen, in_words
from nameplate.training.observers import Observer, Record, RunLength

_NOT_SHOWN = ("learning_rate", "step_loss")  # in the files, but not on every printed line
_SPEED = "examples_per_second"
_FOLLOWED = 0.25  # of the difference between the end that is shown and the one that the last step suggests


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
        """Return the seconds left; None while there is no pace yet."""
        return None if self._end is None else max(0.0, self._end - self._clock())


class ShowProgress(Observer):
    """Shows the progress of the run on the screen."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._bar: Progress | None = None

    def began(self, model: keras.Model, run_length: RunLength) -> None:
        """Start the bars if there is a terminal."""
        self._run_length, self._is_first_epoch = run_length, True
        self._epochs = run_length.epochs.at(run_length.total_steps - 1).index + 1
        if not self._screen.is_terminal:
            return
        self._left = TimeLeft(run_length.total_steps)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _Note(self._left, several=self._epochs > 1),
        )
        self._bar = Progress(*columns, console=self._screen.console, transient=True)
        self._of_epoch = self._bar.add_task("", note="compiling")
        if self._epochs > 1:
            self._of_run = self._bar.add_task("run", total=run_length.total_steps)
        self._move(run_length.first_step)
        self._bar.start()

    def advanced(self, step: int) -> None:
        """Move the bars."""
        if self._bar:
            self._left.advanced(step)
            self._bar.update(self._of_epoch, note="")
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
                self._screen.say(fitted(head, shown, best=record.best, width=self._screen.console.width))
            else:
                self._screen.say(f"{head}  step {record.step}  {in_words(shown, best=record.best)}")
        elif self._bar:
            self._bar.update(self._of_epoch, note=in_words(dict(list(shown.items())[:2])))
        else:
            self._screen.say(f"step {record.step}/{self._run_length.total_steps}  {in_words(shown)}")

    def ended(self) -> None:
        """Remove the bars."""
        if self._bar:
            self._bar.stop()

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
