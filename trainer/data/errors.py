"""What is wrong with the data, also when a graph finds it."""

from __future__ import annotations

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
    words, closed, _ = rest.partition(CLOSE)
    return DataError(words.replace("\\n", "\n").replace("\\'", "'")) if opened and closed else None
