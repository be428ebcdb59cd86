"""How much may come out of a file from elsewhere: one budget for the whole of it, whatever it is read by.

A limit for each tensor or member holds back nothing where there are a thousand of them. So bytes and items are counted
over a file together, against the bytes that it has on the disk: an honest file of any size gives about as much as it
has, a bomb gives thousands of times as much.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from pathlib import Path

from models.formats.errors import FileFormatError

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
