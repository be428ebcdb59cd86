"""TensorFlow's profile of some steps of a run: which operation took how long on which device, for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import keras
import tensorflow as tf

from trainer.callbacks.observer import Journey, Observer

_READERS = ("xprof", "tensorboard_plugin_profile")  # what shows profiles in TensorBoard, under its new and old name


class Profile(Observer):
    """Records the steps after `after` of this process; the trace is `plugins/profile/` under the directory.

    A profile that cannot be recorded, or of which nothing is left, is said and ends no run.
    """

    def __init__(self, directory: Path, *, after: int, steps: int, say: Callable[[str], None]) -> None:
        self._directory, self._after, self._steps, self._say = directory, after, steps, say
        self._since: int | None = None  # the step at which the running profile began

    def began(self, model: keras.Model, journey: Journey) -> None:
        """Choose the steps; where the run has fewer left, its last ones."""
        left = journey.total_steps - journey.first_step
        first = journey.first_step + max(min(self._after, left - self._steps), 0)
        self.at_steps = (first, first + self._steps)
        self._last = journey.first_step
        self.advanced(journey.first_step)

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
