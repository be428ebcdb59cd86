"""The arrays of a file by name: shapes and dtypes at once, values on demand."""

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
    """A lazy `Weights`: `[]` reads one array. Close it with `close` or a `with` block.

    `forms` has the shape and dtype of each array, without reading it; `format` is the file's format; `unnamed` means
    that the file has no layer names, so that these are classes with numbers (`layers/dense_1/0`).
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
        """Hold `arrays`, each read on demand by `read(place)`.

        A `budget` limits their total size; a reader that has checked the sizes itself passes none.

        Raises:
            FileFormatError: when two arrays have one name, a shape is impossible, or all together are too large.
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
        """Close the file."""
        self._close()

    def __enter__(self) -> Arrays:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _itemsize(dtype: str) -> int:
    known = dtypes.of_name(dtype)
    return known.itemsize if known is not None else 1  # a text, which is never read


def _twice(path: Path, listed: list[Array]) -> str:
    places: dict[str, list[str]] = {}
    for array in listed:
        places.setdefault(array.name, []).append(array.place)
    clashes = [f"  {name}: {', '.join(where)}" for name, where in places.items() if len(where) > 1]
    more = [f"  ... and {len(clashes) - _SHOWN} more"] if len(clashes) > _SHOWN else []
    head = f"{path}: {len(clashes)} names belong to several arrays each, so these cannot be read by name:"
    return "\n".join([head, *clashes[:_SHOWN], *more])
