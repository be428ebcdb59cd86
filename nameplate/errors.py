"""Errors worded for users, and the exit codes that they lead to.

The errors of a room derive from `NameplateError` and live beside the code that raises them; here are those that several
rooms share.
"""

from __future__ import annotations

import enum
import os
import re
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class NameplateError(Exception):
    """A mistake of the user or a fault of the machine, worded for the user.

    The message says what was wrong, what was received, what exists and what to do, and lists all offenders at once.
    The command line prints the message alone, without a traceback.
    """


_by_keys = False  # whether a configuration asked for what goes on, not a script


@contextmanager
def configured() -> Iterator[None]:
    """Inside, advice speaks of the keys of a configuration; outside, of the arguments of a script."""
    global _by_keys
    before, _by_keys = _by_keys, True
    try:
        yield
    finally:
        _by_keys = before


def worded(*, keys: str, arguments: str) -> str:
    """Return the advice for whoever reads it now: a user of keys, inside `configured`, or of arguments."""
    return keys if _by_keys else arguments


def as_path(value: Any, argument: str = "path") -> Path:
    """Return an argument as a path; raise `NameplateError` for what is not the path of anything."""
    if not isinstance(value, str | os.PathLike) or not os.fspath(value) or "\0" in str(value):
        raise NameplateError(f"{argument}={value!r:.80}: {_kind(value)}; give the path of a file or directory")
    return Path(value)


def as_names(value: Any, argument: str) -> list[str]:
    """Return names or patterns as a list, a single one too; raise `NameplateError` for anything else."""
    if isinstance(value, str):
        return [value]
    given = list(value) if isinstance(value, Iterable) and not isinstance(value, Mapping | bytes) else [value]
    if wrong := [name for name in given if not isinstance(name, str)]:
        raise NameplateError(
            f"{argument}={value!r:.80}: {wrong[0]!r:.40} is not a name; give a list of names or patterns"
        )
    return given


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}, not a path" if not isinstance(value, str) else "not a path"


def cause(error: Exception | None) -> str:
    """Return the root cause of a Keras error in one line, without the configurations that Keras wraps around it."""
    text = _COLOUR.sub("", str(error))
    *wrappers, last = _WRAPPER.split(text)
    root = " ".join(_DETAILS.split(last)[0].split())
    classes = re.findall(r"(?:deserializing class '|<class ')([\w.]+)'", "".join(wrappers))
    where = f"{classes[-1].rpartition('.')[2]}: " if classes else ""
    shown = root if len(root) <= _LONGEST else f"{root[: _LONGEST // 2]} ... {root[-_LONGEST // 2 :]}"
    return f"{where}{shown or type(error).__name__}"


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_WRAPPER = re.compile(r"(?:Exception|Error) encountered:|Exception encountered when calling [^\n]*\n")
_DETAILS = re.compile(r"Arguments received by|\bExample:|Full object config:")
_LONGEST = 600  # characters


class FileFormatError(NameplateError):
    """A file that is not of the format its name says, or that is refused as unsafe."""


class Exit(enum.IntEnum):
    """The exit codes of `python -m trainer`."""

    DONE = 0
    FAILED = 1
    REFUSED = 2  # before training: configuration, names, data, or a run that another process holds
    NOT_FINITE = 3  # the loss or a weight became NaN or infinite
    INTERRUPTED = 130  # SIGINT, after saving
    TERMINATED = 143  # SIGTERM or SIGUSR1, after saving; requeue the job


_LOWER_KEYS = (
    "A lower optimizer.learning_rate, optimizer.global_clipnorm=1.0 or fit.precision=float32 often help; "
    "fit.on_nan=rollback goes back, at most fit.max_rollbacks times, and skips the data that caused it."
)
_LOWER_ARGUMENTS = (
    "An optimizer with a lower learning_rate or with global_clipnorm=1.0, or float32 in place of mixed precision often "
    "help; nameplate.fit(..., run=..., max_rollbacks=3) goes back, at most so often, and skips the data that caused it."
)


class NotFiniteError(NameplateError):
    """A loss or weight that is NaN or infinite; nothing was saved after it."""

    exit_code = Exit.NOT_FINITE

    def __init__(self, step: int, what: str, saved: str) -> None:
        self.step, self.what = step, what
        super().__init__(
            f"{what}. Nothing was saved after that; {saved}. {worded(keys=_LOWER_KEYS, arguments=_LOWER_ARGUMENTS)}"
        )


class StoppedError(NameplateError):
    """A run that a signal ended, with everything saved up to its last step."""

    ends_all = True  # a sweep stops as well

    def __init__(self, received: signal.Signals, step: int, saved: str) -> None:
        self.received, self.step = received, step
        self._where = f"stopped by {received.name} after step {step}; {saved}."
        super().__init__(f"{self._where} The same command goes on from there.")

    def add_command(self, command: str) -> None:
        """Add the whole command to the message: repeated without its run=NAME, it would start another run."""
        self.args = (f"{self._where} The same command goes on from there: {command}",)

    @property
    def exit_code(self) -> Exit:
        """The code for a scheduler; both codes mean that the job can be requeued."""
        return Exit.INTERRUPTED if self.received is signal.SIGINT else Exit.TERMINATED


class ScriptStoppedError(StoppedError, SystemExit):
    """A `StoppedError` that ends a script which does not catch it: without a traceback, with the scheduler's code."""

    def __init__(self, error: StoppedError) -> None:
        super().__init__(error.received, error.step, "")
        self.args = error.args
        self.code = int(error.exit_code)


@contextmanager
def training() -> Iterator[None]:
    """Mark errors inside the block as failures of a run that had started, not as refusals."""
    try:
        yield
    except NameplateError as error:
        if not hasattr(error, "exit_code"):
            error.exit_code = Exit.FAILED  # type: ignore[attr-defined]
        raise


def exit_code(error: NameplateError) -> Exit:
    """Return the exit code of an error; an error from before training is a refusal."""
    return getattr(error, "exit_code", Exit.REFUSED)
