"""Keras weights in several HDF5 files, `.weights.json` and its shards, read as if they were one file."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from nameplate.checkpoint import tensor_names
from nameplate.errors import FileFormatError
from nameplate.formats import limits
from nameplate.formats.arrays import Arrays
from nameplate.formats.hdf5 import Contents, Hdf5File
from nameplate.formats.keras_weights import arrays_by_name, has_names
from nameplate.formats.limits import budget_of_files
from nameplate.formats.name_table import NameTable, of_arrays

ENDING = ".weights.json"

_MOST_SHARDS = 200  # each is a process while open


def read_shards_table(path: Path) -> NameTable:
    """Return the table of the files that a Keras index lists.

    Raises:
        FileFormatError: as `open_shards`.
    """
    with ExitStack() as stack:
        contents, _ = _merged(path, stack)
    return of_arrays(path.name, *arrays_by_name(contents))


def open_shards(path: Path) -> Arrays:
    """Open the arrays in the files that a Keras index lists, by layer name; the caller closes them.

    Raises:
        FileFormatError: when the index is invalid, a file lies in another directory, or one is refused.
    """
    with ExitStack() as stack:
        contents, holders = _merged(path, stack)
        table = of_arrays(path.name, *arrays_by_name(contents))
        close = stack.pop_all().close
    return Arrays(
        table.arrays,
        lambda place: holders[place].read(place),
        path=path,
        format=ENDING,
        close=close,
        unnamed=not has_names(contents),
    )


def _merged(path: Path, stack: ExitStack) -> tuple[Contents, dict[str, Hdf5File]]:
    """Return the contents of all files together, and the file of each array; `stack` closes the files."""
    attributes: dict[str, dict[str, Any]] = {}
    datasets: dict[str, tuple[tuple[int, ...], str]] = {}
    holders: dict[str, Hdf5File] = {}
    files = {name: path.parent / name for name in _files(path)}
    for name, shard in files.items():
        if shard.is_symlink():
            raise FileFormatError(f"{path}: {name} is a link; such files are refused")
    budget = budget_of_files(str(path), files.values())
    for shard in files.values():
        file = stack.enter_context(Hdf5File(shard, budget=budget))
        for where, texts in file.contents.attributes.items():
            attributes.setdefault(where, {}).update(texts)
        if twice := sorted(datasets.keys() & file.contents.datasets.keys()):
            raise FileFormatError(f"{path}: {', '.join(twice[:5])} is in two files")
        datasets |= file.contents.datasets
        holders |= dict.fromkeys(file.contents.datasets, file)
    return Contents(attributes, datasets), holders


def _files(path: Path) -> list[str]:
    try:
        listed = limits.read(path)["weight_map"]
    except (OSError, KeyError, TypeError) as error:
        raise FileFormatError(f"{path} is not the index of Keras' weights: {error!r:.200}") from None
    if not isinstance(listed, Mapping) or not all(isinstance(names, list | str) for names in listed.values()):
        raise FileFormatError(f"{path}: its weight_map is not {{group: file, or files}}")
    files = [name for names in listed.values() for name in ([names] if isinstance(names, str) else names)]
    files = list(dict.fromkeys(map(str, files)))
    bad = [name for name in files if tensor_names.foreign_fault(name) or "/" in name]
    if bad or len(files) > _MOST_SHARDS:
        raise FileFormatError(f"{path}: its files must lie beside it under plain names; it lists {bad[:5]}")
    return files
