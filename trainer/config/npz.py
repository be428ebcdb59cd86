"""What an `.npz` file holds, without reading its arrays."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from models.formats import archive as archives
from models.formats.budget import Budget
from models.formats.errors import FileFormatError

# Masks and labels are compressed a hundredfold; without compression an archive of any size is read.
_FLOOR = 256 << 20  # bytes
_EXPANSION = 200


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
                found[each.stem] = _header(file, each.name, each.stat().st_size)
        return found
    if not path.is_file():
        raise ValueError("not a file")
    budget = Budget(str(path), path.stat().st_size, floor=_FLOOR, expansion=_EXPANSION)
    try:
        with archives.opened(path, ".npz", budget=budget) as archive:
            return {info.filename.removesuffix(".npy"): _member(archive, info) for info in archive.infolist()}
    except FileFormatError as error:
        raise ValueError(f"not an .npz archive, or cut short ({error})") from None
    except Exception as error:  # zlib.error and its like, which only their modules know
        raise ValueError(f"a header in it is damaged ({error})") from None


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Entry:
    with archive.open(info) as file:
        return _header(file, info.filename, info.file_size)


def _header(file: IO[bytes], name: str, size: int) -> Entry:
    """Return the shape and dtype that a header claims, which the `size` bytes of the array have to hold."""
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    if math.prod(shape) * dtype.itemsize > size - file.tell():
        raise ValueError(f"{name!r:.120} claims the shape {shape!s:.80} of {dtype!s:.40}, and has {size} bytes in all")
    return Entry(shape, dtype)
