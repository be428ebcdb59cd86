"""Observers of a run: they receive plain numbers at its events, and show or store them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

import keras

from nameplate.checkpoint import durable
from nameplate.checkpoint.errors import explained
from nameplate.data.batches import Epochs
from nameplate.engine.event_files import ProfileError, start_profile, stop_profile
from nameplate.training.run_directory import aside


@dataclass(frozen=True)
class Record:
    """What was measured up to a step."""

    step: int  # steps done, over the whole run
    epoch: int  # index of the epoch that the step belongs to
    values: Mapping[str, float]  # metrics since the start of the epoch, and values of the last step
    of_epoch: bool  # at the end of an epoch, with validation
    best: str | None = None  # the monitored value, if it is better than ever before


@dataclass(frozen=True)
class RunLength:
    """The steps of a run: where this process starts, and where the run ends."""

    first_step: int  # steps done before this process started
    total_steps: int  # steps of the whole run
    epochs: Epochs


class Observer:
    """Receives the events of a run; each method does nothing unless a subclass overrides it."""

    every_steps: int | None = None  # `advanced` is called at least at every multiple of this
    at_steps: Sequence[int] = ()  # and at these; read after `began` has returned

    def began(self, model: keras.Model, run_length: RunLength) -> None:
        """Training starts or resumes."""

    def advanced(self, step: int) -> None:
        """The run has reached this step; nothing was measured."""

    @property
    def wants_values(self) -> bool:
        """Say, after `advanced`, whether to be given the metrics now."""
        return False

    def measured(self, epoch: int, values: Mapping[str, float]) -> None:
        """These are the metrics of the epoch in progress."""

    def recorded(self, record: Record) -> None:
        """Values were measured."""

    def ended(self) -> None:
        """This process has stopped training, for whatever reason."""


_READERS = ("xprof", "tensorboard_plugin_profile")  # the package that shows profiles in TensorBoard, by its two names


class Profile(Observer):
    """Profiles `steps` steps of this process, after its first `after`, into `plugins/profile/` under the directory.

    A failure to profile is reported and does not end the run.
    """

    def __init__(self, directory: Path, *, after: int, steps: int, say: Callable[[str], None]) -> None:
        self._directory, self._after, self._steps, self._say = directory, after, steps, say
        self._since: int | None = None  # the step at which the running profile began

    def began(self, model: keras.Model, run_length: RunLength) -> None:
        """Choose the steps; the last ones if the run has too few left."""
        left = run_length.total_steps - run_length.first_step
        first = run_length.first_step + max(min(self._after, left - self._steps), 0)
        self.at_steps = (first, first + self._steps)
        self._last = run_length.first_step
        self.advanced(run_length.first_step)

    def advanced(self, step: int) -> None:
        """Start or stop the profile at its step."""
        self._last = step
        if step == self.at_steps[0]:
            self._start(step)
        elif step == self.at_steps[1]:
            self._stop(step)

    def ended(self) -> None:
        """Stop the profile of a run that ended early."""
        self._stop(self._last)

    def _start(self, step: int) -> None:
        try:
            start_profile(self._directory)
        except ProfileError as error:
            self._say(f"log.profile_steps: no profile: {error}")
        else:
            self._since = step

    def _stop(self, step: int) -> None:
        if self._since is None:
            return
        since, self._since = self._since, None
        try:
            stop_profile()
        except ProfileError as error:
            self._say(f"log.profile_steps: no profile: {error}")
            return
        reader = "" if any(map(find_spec, _READERS)) else " after `pip install xprof`"
        self._say(f"profile of steps {since + 1} to {step} in {self._directory}; TensorBoard shows it{reader}")


class JsonLines(Observer):
    """Appends records to a file; a resume removes what a killed process wrote after its last checkpoint."""

    def __init__(self, path: Path, *, say: Callable[[str], None] = print) -> None:
        self._path, self._say = path, say
        self._file: TextIO | None = None

    def began(self, model: keras.Model, run_length: RunLength) -> None:
        """Open the file, and remove the records after the step where the run resumes.

        If some lines cannot be read, a copy of the whole file is kept aside, and they are removed too.
        """
        with explained("Writing", self._path):
            if self._path.exists():
                self._remove_after(run_length.first_step)
            self._file = self._path.open("a", encoding="utf-8")

    def _remove_after(self, step: int) -> None:
        *lines, last = self._path.read_bytes().split(b"\n")
        if _step(last) is not None:  # else it is empty, or was cut short by a kill
            lines.append(last)
        steps = [_step(line) for line in lines]
        kept = [line for line, at in zip(lines, steps, strict=True) if at is not None and at <= step]
        text = b"".join(line + b"\n" for line in kept)
        unreadable = [number for number, at in enumerate(steps, 1) if at is None]
        if unreadable:
            copy = aside(self._path)
            durable.write_file(copy, self._path.read_bytes())
            several = len(unreadable) > 1
            which = f"lines {', '.join(map(str, unreadable[:5]))}" if several else f"line {unreadable[0]}"
            more = f" and {len(unreadable) - 5} more" if len(unreadable) > 5 else ""
            self._say(f"{self._path.name}: {which}{more} cannot be read; removed, and the whole file is in {copy.name}")
        durable.replace_file(self._path, text)

    def recorded(self, record: Record) -> None:
        """Write one line, and flush it."""
        assert self._file is not None
        head = {"step": record.step, "epoch": record.epoch, "kind": "epoch" if record.of_epoch else "train"}
        self._file.write(json.dumps(head | dict(record.values)) + "\n")
        self._file.flush()

    def ended(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _step(line: bytes) -> int | None:
    """Return the step of a line; None if it is not a record."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return step if isinstance(step, int) and step >= 0 else None
