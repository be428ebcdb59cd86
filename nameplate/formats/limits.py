"""How much may come out of a file from elsewhere: one budget for the whole of it, whatever it is read by.

A limit for each tensor or member holds back nothing where there are a thousand of them. So bytes and items are counted
over a file together, against the bytes that it has on the disk: an honest file of any size gives about as much as it
has, a bomb gives thousands of times as much.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nameplate.errors import FileFormatError

FLOOR = 64 << 20  # bytes that may come out of any file, however small
EXPANSION = 32  # and so many times what it has: compressed zeros, tensors that share their numbers
MOST_ITEMS = 100_000  # arrays, groups or keys; the largest models have some ten thousand
DEEPEST_SHAPE = 32  # axes of an array
_LARGEST = 1 << 62  # bytes of an array that can exist
_SECONDS = 10  # of processor time, of looking at what a small file has
_PER_SECOND = 50 << 20  # bytes of a larger one
_LOOKS = 1024  # items between two looks at the clock


class Budget:
    """What is left of what may come out of one file, or of several that are read as one."""

    def __init__(
        self, label: str, stored: int, *, floor: int = FLOOR, expansion: int = EXPANSION, seconds: float = _SECONDS
    ) -> None:
        """Take how messages call the file, how many bytes it has on the disk, and what may come out of it how soon."""
        self.label = label
        self.stored = stored
        self.allowed = floor + expansion * stored  # bytes
        self._bytes = 0
        self._items = 0
        self._ends = time.thread_time() + seconds + stored / _PER_SECOND

    def spend(self, nbytes: int = 0, *, items: int = 1) -> None:
        """Count bytes that come out, and items that are looked at.

        Raises:
            FileFormatError: when they are more than the file may give, or looking at it takes too long.
        """
        before = self._items // _LOOKS
        self._bytes += nbytes
        self._items += items
        if self._bytes > self.allowed:
            raise FileFormatError(self.too_large(self._bytes))
        if self._items > MOST_ITEMS:
            raise FileFormatError(f"{self.label} is refused: it has more than {MOST_ITEMS} parts; no model has")
        if self._items // _LOOKS != before and time.thread_time() > self._ends:
            raise FileFormatError(f"{self.label} is refused: its {self.stored} bytes take too long to look through")

    def too_large(self, nbytes: int) -> str:
        """Return in words that so many bytes would come out, which are too many."""
        return (
            f"{self.label} is refused: its {self.stored} bytes would grow to {nbytes} or more; at most {self.allowed} "
            "come out of a file of this size"
        )

    def spend_arrays(self, arrays: Iterable[tuple[str, tuple[int, ...], int]]) -> None:
        """Count arrays: their names, shapes, and the bytes of one number.

        Raises:
            FileFormatError: as `spend`, and for a shape that no array can have.
        """
        for name, shape, itemsize in arrays:
            if len(shape) > DEEPEST_SHAPE or math.prod(max(1, size) for size in shape) * itemsize >= _LARGEST:
                raise FileFormatError(
                    f"{self.label} is refused: {name!r:.120} has the shape {shape!s:.80} of {len(shape)} axes, which "
                    "no array has"
                )
            self.spend(math.prod(shape) * itemsize)


def budget_of(path: Path, *, label: str = "") -> Budget:
    """Return the budget of a file on the disk."""
    return Budget(label or str(path), path.stat().st_size)


def budget_of_files(label: str, paths: Iterable[Path]) -> Budget:
    """Return the budget of several files that are read as one.

    Raises:
        FileFormatError: when two of them are one file under two names, or one is not there.
    """
    seen: dict[tuple[int, int], Path] = {}
    stored = 0
    for path in paths:
        try:
            about = path.stat()
        except OSError as error:
            raise FileFormatError(f"{label}: {path.name} is not there ({error.strerror})") from None
        if other := seen.get((about.st_dev, about.st_ino)):
            raise FileFormatError(f"{label} is refused: {other.name} and {path.name} are one file")
        seen[about.st_dev, about.st_ino] = path
        stored += about.st_size
    return Budget(label, stored)


LARGEST = 64 << 20  # characters; a layer takes some 1500
_MOST_OBJECTS = 250_000  # lists and dictionaries; a layer has some 20
_MOST_VALUES = 1_000_000
_DEEPEST = 200  # levels; a model in a model takes three


def parsed(text: str | bytes, label: str, *, largest: int = LARGEST) -> Any:
    """Return the data of a JSON text; `label` is how messages call it.

    Raises:
        FileFormatError: it is no JSON, has a key twice, or is larger or deeper than the description of any model.
    """
    size = len(text)
    if size > largest:
        raise FileFormatError(f"{label} has {size} bytes; at most {largest} are read")
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        _measure(decoded)
        found = json.loads(decoded, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{label} cannot be read as JSON ({error})") from None
    if _depth(found) > _DEEPEST:
        raise FileFormatError(f"{label} is nested deeper than {_DEEPEST} levels; no model is")
    return found


def read(path: Path) -> Any:
    """Return the data of a JSON file.

    Raises:
        FileFormatError: as `parsed`.
        OSError: when it cannot be read.
    """
    size = path.stat().st_size
    if size > LARGEST:
        raise FileFormatError(f"{path} has {size} bytes; at most {LARGEST} are read")
    return parsed(path.read_bytes(), str(path))


def _measure(text: str) -> None:
    if text.count("{") + text.count("[") > _MOST_OBJECTS or text.count(",") > _MOST_VALUES:
        raise ValueError(f"it has more than {_MOST_OBJECTS} objects or {_MOST_VALUES} values")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _depth(found: Any) -> int:
    """Return how many levels of lists and dictionaries there are, counted up to one more than is read."""
    level, depth = [found], 0
    while level and depth <= _DEEPEST:
        inner = [
            value.values() if isinstance(value, dict) else value for value in level if isinstance(value, dict | list)
        ]
        level = [child for children in inner for child in children]
        depth += bool(inner)
    return depth
