"""What an `.npz` file holds, without reading its arrays."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from nameplate.data.base_config import MISSING, DataConfig, example, listed, unknown
from nameplate.errors import FileFormatError
from nameplate.formats import zip_archive as archives
from nameplate.formats.limits import Budget
from nameplate.naming.names import did_you_mean

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


@dataclass(frozen=True)
class ArraysConfig(DataConfig):
    """Arrays of an `.npz` file, or a folder of `.npy` files that stay on the disk and are read as needed."""

    path: str = field(default=MISSING, metadata=example("data.path=/data/train.npz"))
    validation_path: str | None = None  # the same keys, to validate on; None: a share of `path`
    test_path: str | None = None  # the same keys, for the last test; None: a share of `path`
    inputs: list[str] = field(default_factory=lambda: ["x"])  # keys; they name the model's inputs
    targets: list[str] = field(default_factory=lambda: ["y"])  # keys; they name the outputs
    sample_weight: str | None = None  # key of one weight an example
    classes: dict[str, int] = field(default_factory=dict)  # of a target; not given: largest label + 1
    scale: float | None = None  # factor on every input, which becomes float32; e.g. 0.00392157 for bytes

    def source_problems(self) -> Iterator[str]:
        """Yield files that are not there, keys that they do not have and lengths that differ."""
        for key in ("inputs", "targets"):
            if not getattr(self, key):
                yield f"data.{key}: empty; at least one key, e.g. data.{key}=[{key[0]}]"
        yield from unknown("data.classes", self.classes, self.targets, "target")
        for key in ("path", "validation_path", "test_path"):
            if (value := getattr(self, key)) not in (None, MISSING):
                yield from self._file_problems(f"data.{key}", value)

    def keys(self) -> list[str]:
        """Return every key that each file must have."""
        return [*self.inputs, *self.targets, *([self.sample_weight] if self.sample_weight else [])]

    def _file_problems(self, key: str, value: str) -> Iterator[str]:
        path = Path(value).expanduser()
        if not path.exists():
            yield f"{key}: nothing at {value!r}; give an .npz file or a folder of .npy files"
            return
        try:
            found = entries(path)
        except (ValueError, OSError) as error:
            yield f"{key}: {value!r} cannot be read: {error}"
            return
        absent = [each for each in self.keys() if each not in found]
        for each in absent:
            near = did_you_mean(each, found)
            yield f"{key}: {value!r} has no array {each!r}; it has {listed(found)}.{near}"
        if not absent:
            yield from _entry_problems(key, {each: found[each] for each in self.keys()})


@dataclass(frozen=True)
class CsvConfig(DataConfig):
    """A CSV table with a header; numbers in, classes or numbers out."""

    path: str = field(default=MISSING, metadata=example("data.path=/data/table.csv"))
    validation_path: str | None = None  # the same columns, to validate on; None: a share of `path`
    test_path: str | None = None  # the same columns, for the last test; None: a share of `path`
    inputs: list[str] = field(default_factory=list)  # columns; empty: all that are not used otherwise
    named: bool = False  # each column an input of its own; false: one input `features`, a vector of all
    classes: list[str] = field(default_factory=list)  # columns to predict as classes, e.g. [species]
    values: list[str] = field(default_factory=list)  # columns to predict as numbers, e.g. [price]
    sample_weight: str | None = None  # column of one weight an example
    delimiter: str = ","

    def source_problems(self) -> Iterator[str]:
        """Yield files that are not there, and columns that cannot be used as asked."""
        if not self.classes and not self.values:
            yield "data.classes, data.values: nothing to predict; e.g. data.classes=[species]"
        if len(self.delimiter) != 1:
            yield f"data.delimiter: {self.delimiter!r}; exactly one character"
        used = [*self.inputs, *self.classes, *self.values]
        used += [self.sample_weight] if self.sample_weight else []
        for each in sorted({name for name in used if used.count(name) > 1}):
            yield f"data: the column {each!r} is used twice, among inputs, classes, values and sample_weight"
        for key in ("path", "validation_path", "test_path"):
            value = getattr(self, key)
            if value not in (None, MISSING) and not Path(value).expanduser().is_file():
                yield f"data.{key}: no file at {value!r}"


def _entry_problems(key: str, found: dict[str, Entry]) -> Iterator[str]:
    for name, entry in found.items():
        if entry.dtype.kind not in "biuf":
            yield f"{key}: the array {name!r} has dtype {entry.dtype}; numbers or truth values are needed"
        if not entry.shape or not entry.shape[0]:
            yield f"{key}: the array {name!r} has shape {entry.shape}; the first dimension counts examples"
    lengths = {name: entry.shape[:1] for name, entry in found.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} {length[0] if length else 'none'}" for name, length in lengths.items())
        yield f"{key}: the arrays differ in their number of examples: {counts}"
