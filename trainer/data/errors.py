"""What is wrong with the data, also when a graph finds it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from models.errors import NameplateError

OPEN, CLOSE = "<data>", "</data>"  # around what a graph has to say, in whatever TensorFlow wraps it


class DataError(NameplateError):
    """Data that cannot be used; the message lists every problem found."""


def refuse(problems: Iterable[str]) -> None:
    """Raise `DataError` with all the problems, if there are any."""
    found = list(problems)
    if found:
        head = "the data cannot be used:" if len(found) == 1 else f"{len(found)} reasons not to use the data:"
        raise DataError("\n".join([head, *(f"  {each}" for each in found)]))


def data_error(error: Exception) -> DataError | None:
    """Return what a source said while it loaded inside a graph, or None where the error is another one.

    Sources load inside `tf.data` and `tf.function`, where nothing but a `tf.errors.OpError` comes out; its
    message carries the source's own words between marks.
    """
    _, opened, rest = str(error).partition(OPEN)
    words, closed, rest = rest.partition(CLOSE)
    if not opened or not closed:
        return None
    if "assertion failed" in str(error):  # its operation writes what it was given with escapes, like C
        words = words.encode().decode("unicode_escape").encode("latin-1").decode(errors="replace")
    detail = re.split(r"\n| \[Op:", rest, maxsplit=1)[0].strip("],. '\"")
    return DataError(": ".join(filter(None, [words, detail])))
