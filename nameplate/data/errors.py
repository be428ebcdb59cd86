"""`DataError`: what is wrong with the data, also when a graph finds out. No framework."""

from __future__ import annotations

import re
from collections.abc import Iterable

from nameplate.errors import NameplateError

OPEN, CLOSE = "<data>", "</data>"  # around a message that a graph raises, inside whatever TensorFlow wraps it in


class DataError(NameplateError):
    """Data that cannot be used; the message lists every problem found."""


class ByBatchError(NameplateError, ValueError):
    """Data that the loop in the graph does not take: only a loop in Python does, one batch after another."""


def refuse(problems: Iterable[str]) -> None:
    """Raise `DataError` with all the problems, if there are any."""
    problems = list(problems)
    if problems:
        head = "the data cannot be used:" if len(problems) == 1 else f"{len(problems)} reasons not to use the data:"
        raise DataError("\n".join([head, *(f"  {problem}" for problem in problems)]))


def data_error(error: Exception) -> DataError | None:
    """Return the error that a source raised inside a graph, or None if the error is another one.

    Sources load inside `tf.data` and `tf.function`, which raise only `tf.errors.OpError`; its message carries the
    source's own between marks.
    """
    _, opened, rest = str(error).partition(OPEN)
    message, closed, rest = rest.partition(CLOSE)
    if not opened or not closed:
        return None
    if "assertion failed" in str(error):  # tf.raw_ops.Assert prints its data with C escapes
        message = message.encode().decode("unicode_escape").encode("latin-1").decode(errors="replace")
    detail = re.split(r"\n| \[Op:", rest, maxsplit=1)[0].strip("],. '\"")
    return DataError(": ".join(filter(None, [message, detail])))
