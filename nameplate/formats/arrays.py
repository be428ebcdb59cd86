"""The arrays of a file by name: shapes and types at once, values when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from nameplate.checkpoint import dtypes
from nameplate.errors import FileFormatError
from nameplate.formats.limits import Budget
from nameplate.formats.name_table import Array
from nameplate.weights.plan import Form

_SHOWN = 10


class Arrays(Mapping[str, np.ndarray]):
    """A lazy `Weights`: `[]` reads that array alone. `close` it, or use it as a context.

    `forms` has each name's shape and type without reading; `format` is the kind of file it came from; `unnamed` says
    that the file has no names, so that these are counts of classes (`layers/dense_1/0`).
    """

    def __init__(
        self,
        arrays: Iterable[Array],
        read: Callable[[str], np.ndarray],
        *,
        path: Path,
        format: str,
        budget: Budget | None = None,
        close: Callable[[], None] = lambda: None,
        unnamed: bool = False,
    ) -> None:
        """Take what a file holds, how a place in it is read, and how much may come out; no budget where all is proved.

        Raises:
            FileFormatError: when two arrays have one name, one has no shape that can be, or all are too large together.
        """
        listed = list(arrays)
        self.path = path
        self.format = format
        self.unnamed = unnamed
        self.places = {array.name: array.place for array in listed}
        self.forms = {array.name: Form(array.shape, array.dtype) for array in listed}
        self._read = read
        self._close = close
        try:
            if budget is not None:
                budget.spend_arrays((array.name, array.shape, _itemsize(array.dtype)) for array in listed)
        except FileFormatError:
            self.close()
            raise
        if len(self.places) != len(listed):
            self.close()
            raise FileFormatError(_twice(path, listed))

    def __getitem__(self, name: str) -> np.ndarray:
        value = self._read(self.places[name])
        return value if value.flags.writeable else value.copy()

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __contains__(self, name: object) -> bool:
        return name in self.places

    def close(self) -> None:
        """Let go of the file."""
        self._close()

    def __enter__(self) -> Arrays:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _itemsize(dtype: str) -> int:
    found = dtypes.of_name(dtype)
    return found.itemsize if found is not None else 1  # a text, which is not read


def _twice(path: Path, listed: list[Array]) -> str:
    places: dict[str, list[str]] = {}
    for array in listed:
        places.setdefault(array.name, []).append(array.place)
    clashes = [f"  {name}: {', '.join(where)}" for name, where in places.items() if len(where) > 1]
    more = [f"  ... and {len(clashes) - _SHOWN} more"] if len(clashes) > _SHOWN else []
    head = f"{path}: {len(clashes)} names stand for several arrays, so that none can be taken by name:"
    return "\n".join([head, *clashes[:_SHOWN], *more])
