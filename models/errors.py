"""What a user did that cannot be done: an answer, never a traceback."""

from __future__ import annotations

import re


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
