"""What a user did that cannot be done: an answer, never a traceback."""

from __future__ import annotations

import enum
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager


class NameplateError(Exception):
    """A mistake of the user's or a fault of the machine's, worded for the user.

    The message says what was wrong, what was received, what exists and what to do, all offenders at once. The
    command line prints it alone, without a traceback.
    """


def cause(error: Exception | None) -> str:
    """Return in one line what is at the bottom of an error of Keras', without the configurations around it."""
    text = _COLOUR.sub("", str(error))
    *around, last = _WRAPPED.split(text)
    bottom = " ".join(_BEHIND.split(last)[0].split())
    classes = re.findall(r"(?:deserializing class '|<class ')([\w.]+)'", "".join(around))
    where = f"{classes[-1].rpartition('.')[2]}: " if classes else ""
    shown = bottom if len(bottom) <= _LONGEST else f"{bottom[: _LONGEST // 2]} ... {bottom[-_LONGEST // 2 :]}"
    return f"{where}{shown or type(error).__name__}"


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_WRAPPED = re.compile(r"(?:Exception|Error) encountered:|Exception encountered when calling [^\n]*\n")
_BEHIND = re.compile(r"Arguments received by|\bExample:|Full object config:")  # what no message needs
_LONGEST = 600  # characters of a cause


class FileFormatError(NameplateError):
    """A file that is not what its name says, or that is refused for what it could do."""


class Exit(enum.IntEnum):
    """What `python -m trainer` gives back to whoever started it."""

    DONE = 0
    FAILED = 1
    REFUSED = 2  # before training: configuration, names, data, a run that is taken
    NOT_FINITE = 3  # the loss, or a weight, became NaN or infinite
    INTERRUPTED = 130  # SIGINT, after saving
    TERMINATED = 143  # SIGTERM or SIGUSR1, after saving: to be requeued


class NotFiniteError(NameplateError):
    """A loss or a weight that is NaN or infinite; nothing after it was saved."""

    exit_code = Exit.NOT_FINITE

    def __init__(self, step: int, what: str, saved: str) -> None:
        self.step, self.what = step, what
        super().__init__(
            f"{what}. Nothing since was saved; {saved}. "
            "A lower optimizer.learning_rate, optimizer.global_clipnorm=1.0 or fit.precision=float32 often help; "
            "fit.on_nan=rollback goes back, fit.max_rollbacks times at most, and passes over the data that did it."
        )


class StoppedError(NameplateError):
    """A run that a signal ended, with everything saved up to the step it had reached."""

    ends_all = True  # the jobs after it too

    def __init__(self, received: signal.Signals, step: int, saved: str) -> None:
        self.received, self.step = received, step
        self._where = f"stopped by {received.name} after step {step}; {saved}."
        super().__init__(f"{self._where} The same command goes on from there.")

    def to_go_on(self, command: str) -> None:
        """Say the command whole: typed again without its run=NAME it would begin another run."""
        self.args = (f"{self._where} The same command goes on from there: {command}",)

    @property
    def exit_code(self) -> Exit:
        """Return the code for a scheduler: both tell it that the job can be requeued."""
        return Exit.INTERRUPTED if self.received is signal.SIGINT else Exit.TERMINATED


@contextmanager
def training() -> Iterator[None]:
    """Mark what goes wrong inside as a failure of a run that had begun, not as one that was refused."""
    try:
        yield
    except NameplateError as error:
        if not hasattr(error, "exit_code"):
            error.exit_code = Exit.FAILED  # type: ignore[attr-defined]
        raise


def exit_code(error: NameplateError) -> Exit:
    """Return the code that an error leads to; one from before the training is a refusal."""
    return getattr(error, "exit_code", Exit.REFUSED)
