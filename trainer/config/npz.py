"""What an `.npz` file holds, without reading its arrays."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.lib import format as npy


class Entry(NamedTuple):
    """The shape and dtype of one stored array."""

    shape: tuple[int, ...]
    dtype: np.dtype


def entries(path: Path) -> dict[str, Entry]:
    """Return `{key: Entry}` of an `.npz` file, or of a folder of `.npy` files.

    Raises:
        ValueError: the file is not an archive of arrays, or an array's header is damaged.
    """
    if path.is_dir():
        found = {}
        for each in sorted(path.glob("*.npy")):
            if not each.is_file():  # a pipe would be waited for
                raise ValueError(f"{each.name} is not a file")
            with each.open("rb") as file:
                found[each.stem] = _header(file)
        return found
    if not path.is_file():
        raise ValueError("not a file")
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy"): _member(archive, name) for name in archive.namelist()}
    except zipfile.BadZipFile as error:
        raise ValueError(f"not an .npz archive, or cut short ({error})") from None


def _member(archive: zipfile.ZipFile, name: str) -> Entry:
    with archive.open(name) as file:
        return _header(file)


def _header(file: IO[bytes]) -> Entry:
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    return Entry(shape, dtype)
