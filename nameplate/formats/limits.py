"""How much may come out of a file from elsewhere: one budget for the whole file, shared by all its readers.

A limit per tensor or member stops nothing when there are a thousand of them. So bytes and items are counted over the
whole file, in proportion to its size on disk: an honest file of any size yields about its own size, a bomb thousands of
times as much. JSON texts are measured before they are parsed.
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
EXPANSION = 32  # plus so many times its size: for compressed zeros, and tensors that share their numbers
MOST_ITEMS = 100_000  # arrays, groups or keys; the largest models have some ten thousand
DEEPEST_SHAPE = 32  # axes of an array
_LARGEST_ARRAY = 1 << 62  # bytes
_SECONDS = 10  # of processor time for any file
_PER_SECOND = 50 << 20  # plus one second for so many bytes of it
_CLOCK_INTERVAL = 1024  # items between two checks of the clock

LARGEST = 64 << 20  # characters of a JSON text; a layer takes some 1500
_MOST_OBJECTS = 250_000  # lists and dictionaries; a layer has some 20
_MOST_VALUES = 1_000_000
_DEEPEST = 200  # levels; a model in a model takes three


class Budget:
    """What may still come out of one file, or of several that are read as one."""

    def __init__(
        self,
        label: str,
        stored: int,
        *,
        floor: int = FLOOR,
        expansion: int = EXPANSION,
        seconds: float = _SECONDS,
        most_items: int = MOST_ITEMS,
    ) -> None:
        """Start the budget of a file of `stored` bytes that messages call `label`.

        It allows floor + expansion * stored bytes in `most_items`, within `seconds` of processor time and more for a
        large file.
        """
        self.label = label
        self.stored = stored
        self.allowed = floor + expansion * stored  # bytes
        self.most_items = most_items
        self._bytes = 0
        self._items = 0
        self._ends = time.thread_time() + seconds + stored / _PER_SECOND

    def spend(self, nbytes: int = 0, *, items: int = 1) -> None:
        """Count bytes that come out and items that are examined.

        Raises:
            FileFormatError: when they exceed the budget, or examining the file takes too long.
        """
        before = self._items // _CLOCK_INTERVAL
        self._bytes += nbytes
        self._items += items
        if self._bytes > self.allowed:
            raise FileFormatError(self.too_large(self._bytes))
        if self._items > self.most_items:
            raise FileFormatError(f"{self.label} is refused: it has more than {self.most_items} parts")
        if self._items // _CLOCK_INTERVAL != before and time.thread_time() > self._ends:
            raise FileFormatError(f"{self.label} is refused: its {self.stored} bytes take too long to look through")

    def too_large(self, nbytes: int) -> str:
        """Return the message for a file out of which `nbytes` would come."""
        return (
            f"{self.label} is refused: its {self.stored} bytes would grow to {nbytes} or more; at most {self.allowed} "
            "are allowed for a file of this size"
        )

    def spend_arrays(self, arrays: Iterable[tuple[str, tuple[int, ...], int]]) -> None:
        """Count arrays, each given as (name, shape, bytes per element).

        Raises:
            FileFormatError: as `spend`, and for an impossible shape.
        """
        for name, shape, itemsize in arrays:
            if len(shape) > DEEPEST_SHAPE or math.prod(max(1, size) for size in shape) * itemsize >= _LARGEST_ARRAY:
                raise FileFormatError(
                    f"{self.label} is refused: {name!r:.120} has an impossible shape {shape!s:.80}, {len(shape)} axes"
                )
            self.spend(math.prod(shape) * itemsize)


def budget_of(path: Path, *, label: str = "") -> Budget:
    """Return the budget of a file on disk."""
    return Budget(label or str(path), path.stat().st_size)


def budget_of_files(label: str, paths: Iterable[Path]) -> Budget:
    """Return the budget of several files that are read as one.

    Raises:
        FileFormatError: when two of them are the same file, or one is missing.
    """
    seen: dict[tuple[int, int], Path] = {}
    stored = 0
    for path in paths:
        try:
            about = path.stat()
        except OSError as error:
            raise FileFormatError(f"{label}: {path.name} cannot be found ({error.strerror})") from None
        if other := seen.get((about.st_dev, about.st_ino)):
            raise FileFormatError(f"{label} is refused: {other.name} and {path.name} are one file")
        seen[about.st_dev, about.st_ino] = path
        stored += about.st_size
    return Budget(label, stored)


def parsed(text: str | bytes, label: str, *, largest: int = LARGEST) -> Any:
    """Return the data of a JSON text that messages call `label`.

    Raises:
        FileFormatError: when it is not JSON, has a duplicate key, or is larger or deeper than any model's description.
    """
    size = len(text)
    if size > largest:
        raise FileFormatError(f"{label} has {size} bytes; at most {largest} are read")
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        _measure(decoded)
        data = json.loads(decoded, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{label} cannot be read as JSON ({error})") from None
    if _depth(data) > _DEEPEST:
        raise FileFormatError(f"{label} is nested deeper than {_DEEPEST} levels, and no model is")
    return data


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


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key appears twice")
    return fields


def _depth(data: Any) -> int:
    """Return the number of levels of lists and dictionaries, counted up to one more than the limit."""
    level, depth = [data], 0
    while level and depth <= _DEEPEST:
        inner = [
            value.values() if isinstance(value, dict) else value for value in level if isinstance(value, dict | list)
        ]
        level = [child for children in inner for child in children]
        depth += bool(inner)
    return depth
