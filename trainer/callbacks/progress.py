"""Progress: a bar on a terminal, one line an epoch and one a record in a log file."""

from __future__ import annotations

import keras
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from trainer.callbacks.observer import Journey, Observer, Record
from trainer.console import Screen, in_words

_NOT_SHOWN = ("learning_rate", "step_loss")  # in the files, not on every line


class ShowProgress(Observer):
    """Shows where the run stands."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._bar: Progress | None = None

    def began(self, model: keras.Model, journey: Journey) -> None:
        """Start the bar where there is a terminal."""
        self._journey = journey
        if not self._screen.is_terminal:
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=self._screen.console, transient=True)
        self._task = self._bar.add_task("training", total=journey.total_steps, completed=journey.first_step)
        self._bar.start()

    def advanced(self, step: int) -> None:
        """Move the bar."""
        if self._bar:
            self._bar.update(self._task, completed=step)

    def recorded(self, record: Record) -> None:
        """Write a line an epoch; between epochs only where there is no bar to look at."""
        epochs = -(-self._journey.total_steps // self._journey.steps_per_epoch)
        shown = {name: value for name, value in record.values.items() if name not in _NOT_SHOWN}
        if record.of_epoch:
            self._screen.say(f"epoch {record.epoch + 1}/{epochs}  step {record.step}  {in_words(shown)}")
        elif self._bar:
            self._bar.update(self._task, description=in_words(dict(list(shown.items())[:2])))
        else:
            self._screen.say(f"step {record.step}/{self._journey.total_steps}  {in_words(shown)}")

    def ended(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()
