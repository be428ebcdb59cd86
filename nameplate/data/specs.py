"""What the values of a data configuration mean: augmentations, features, stored arrays and files. No TensorFlow.

A configuration is checked before TensorFlow is imported, so whatever its checks have to parse or look up is here:
`augment_step`, `parse_feature`, `array_headers` and `find_files`.
"""

from __future__ import annotations

import enum
import math
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy

from nameplate.errors import FileFormatError
from nameplate.formats import zip_archive
from nameplate.formats.limits import Budget
from nameplate.naming.keras_objects import AUGMENTATIONS, TARGET, arguments_of
from nameplate.naming.names import did_you_mean

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")  # suffixes of files that are read as images
TABLES = (".csv", ".parquet", ".arrow", ".feather")  # suffixes of files that are read as tables

# The default amount of each augmentation: the largest change, in the unit of its comment. None takes no amount.
AMOUNTS: dict[str, float | None] = {
    "flip": None,  # left to right, every other image
    "flip_vertical": None,  # top to bottom, every other image
    "shift": 0.1,  # fraction of height and of width
    "rotate": 0.05,  # fraction of a full turn
    "zoom": 0.1,  # fraction of the size
    "brightness": 0.2,  # on values in 0..1
    "contrast": 0.2,  # fraction of the contrast
}

FEATURE_EXAMPLES = "'int64', 'float32 16', 'uint8 28x28x1', 'image 64x64x3'"
_FEATURE = re.compile(r"(image|float32|int64|uint8)(?: (\d+(?:x\d+)*))?")

# An archive may expand this much before it is refused: masks and labels compress a hundredfold. The floor is in bytes.
_FLOOR = 256 << 20
_EXPANSION = 200


def augment_step(spec: str) -> tuple[str, float | None]:
    """Return `(name, amount)` of a spec, `name` or `name:amount`, which must have no problems."""
    name, _, amount = spec.partition(":")
    return name, float(amount) if amount else AMOUNTS[name]


def is_layer(item: Any) -> bool:
    """Return whether an item of `data.augment` names a layer of Keras or of one's own, and is not one of `AMOUNTS`."""
    if not isinstance(item, str):
        return True
    own = "." in item and ":" not in item
    return item.partition(":")[0] not in AMOUNTS and (own or AUGMENTATIONS.find(item) is not None)


def augment_problems(items: Sequence[Any]) -> list[str]:
    """Return what in `data.augment` cannot be used."""
    problems: list[str] = []
    for place, item in enumerate(items):
        if is_layer(item):
            problems += AUGMENTATIONS.problems(f"data.augment[{place}]", item)
            problems += _idle_problems(f"data.augment[{place}]", item)
        elif problem := _augment_problem(item):
            problems.append(f"data.augment: {problem}")
    names = [item.partition(":")[0] for item in items if not is_layer(item)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    return problems + [f"data.augment: {name!r} is given twice" for name in repeated]


_MODES = ("horizontal", "vertical", "horizontal_and_vertical")
_IDLE = {"RandomShear": "x_factor", "RandomColorJitter": "brightness_factor"}  # with all its arguments left out


def _idle_problems(key: str, item: Any) -> Iterator[str]:
    """Yield what Keras takes without a word, and then changes no image."""
    own, arguments = AUGMENTATIONS.keras_class(item), arguments_of(item)
    mode = arguments.get("mode", _MODES[0])
    if own == "RandomFlip" and mode not in _MODES:
        yield f"{key}.mode: {mode!r} is not one of {', '.join(_MODES)}.{did_you_mean(str(mode), _MODES)}"
    if own in _IDLE and not any(name.endswith("factor") for name in arguments):
        yield f"{key}: {own} changes nothing without arguments; e.g. {{{TARGET}: {own}, {_IDLE[own]}: 0.2}}"


def _augment_problem(spec: str) -> str:
    name, colon, amount = spec.partition(":")
    if name not in AMOUNTS:
        near = did_you_mean(name, [*AMOUNTS, *AUGMENTATIONS.words(name)])
        return f"no augmentation {name!r}; there are {', '.join(AMOUNTS)}, and layers such as RandomErasing.{near}"
    if not colon:
        return ""
    if AMOUNTS[name] is None:
        return f"{spec!r}: {name} takes no amount; write {name!r}"
    try:
        in_range = 0 < float(amount) < 1
    except ValueError:
        in_range = False
    return "" if in_range else f"{spec!r}: the amount is a number between 0 and 1, e.g. '{name}:{AMOUNTS[name]}'"


class Encoding(enum.StrEnum):
    """How a TFRecord feature stores its values."""

    FIXED = "fixed"  # a list of floats or of integers
    RAW = "raw"  # one byte string that holds the bytes of the array
    IMAGE = "image"  # one byte string that holds an encoded JPEG, PNG, GIF or BMP


@dataclass(frozen=True)
class Feature:
    """A declared feature: its form in an example after decoding."""

    encoding: Encoding
    dtype: str
    shape: tuple[int, ...]


def parse_feature(spec: str) -> Feature:
    """Return the feature that a spec declares.

    `float32`, `int64`: one number. `float32 16`, `int64 2x3`: a list, in that shape. `uint8 28x28x1`:
    raw bytes. `image 64x64x3`: an encoded image, resized to that height and width, with 1 or 3 channels.

    Raises:
        ValueError: the spec is none of these.
    """
    match = _FEATURE.fullmatch(spec.strip())
    if not match:
        raise ValueError(f"{spec!r} declares nothing known; write e.g. {FEATURE_EXAMPLES}")
    dtype, size = match.groups()
    shape = tuple(int(side) for side in size.split("x")) if size else ()
    if 0 in shape:
        raise ValueError(f"{spec!r} has a dimension of 0")
    if dtype == "image":
        if len(shape) != 3 or shape[2] not in (1, 3):
            raise ValueError(f"{spec!r}: an image is height x width x channels (1 or 3), e.g. 'image 64x64x3'")
        return Feature(Encoding.IMAGE, "float32", shape)
    if dtype == "uint8":
        return Feature(Encoding.RAW, dtype, shape)
    return Feature(Encoding.FIXED, dtype, shape)


class ArrayHeader(NamedTuple):
    """The shape and dtype of a stored array."""

    shape: tuple[int, ...]
    dtype: np.dtype


def array_headers(path: Path) -> dict[str, ArrayHeader]:
    """Return the header of each array in an `.npz` file or a folder of `.npy` files, by key; no array is read.

    Raises:
        ValueError: the file is not an archive of arrays, or an array's header is damaged.
    """
    if path.is_dir():
        headers = {}
        for file in sorted(path.glob("*.npy")):
            if not file.is_file():  # opening a pipe would block
                raise ValueError(f"{file.name} is not a file")
            with file.open("rb") as content:
                headers[file.stem] = _header(content, file.name, file.stat().st_size)
        return headers
    if not path.is_file():
        raise ValueError("not a file")
    budget = Budget(str(path), path.stat().st_size, floor=_FLOOR, expansion=_EXPANSION)
    try:
        with zip_archive.opened(path, ".npz", budget=budget) as archive:
            return {info.filename.removesuffix(".npy"): _member(archive, info) for info in archive.infolist()}
    except FileFormatError as error:
        raise ValueError(f"not an .npz archive, or cut short ({error})") from None
    except Exception as error:  # zlib.error and others that only their own modules name
        raise ValueError(f"a header in it is damaged ({error})") from None


def header_problems(key: str, headers: dict[str, ArrayHeader]) -> Iterator[str]:
    """Yield arrays that are not numbers, have no examples, or differ in their number."""
    for name, header in headers.items():
        if header.dtype.kind not in "biuf":
            yield f"{key}: the array {name!r} has dtype {header.dtype}; numbers or truth values are needed"
        if not header.shape or not header.shape[0]:
            yield f"{key}: the array {name!r} has shape {header.shape}; the first dimension counts examples"
    lengths = {name: header.shape[:1] for name, header in headers.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} {length[0] if length else 'none'}" for name, length in lengths.items())
        yield f"{key}: the arrays differ in their number of examples: {counts}"


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> ArrayHeader:
    with archive.open(info) as file:
        return _header(file, info.filename, info.file_size)


def _header(file: IO[bytes], name: str, size: int) -> ArrayHeader:
    """Return the shape and dtype in a header, which the `size` bytes of the member must be able to hold."""
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    if math.prod(shape) * dtype.itemsize > size - file.tell():
        raise ValueError(f"{name!r:.120} claims the shape {shape!s:.80} of {dtype!s:.40}, and has {size} bytes in all")
    return ArrayHeader(shape, dtype)


def find_files(patterns: Iterable[str]) -> list[Path]:
    """Return the files that the patterns match, each once, in the order of the patterns and then by name."""
    return list(dict.fromkeys(path for pattern in patterns for path in matching_files(pattern)))


def matching_files(pattern: str) -> list[Path]:
    """Return the files that one path or glob pattern matches, by name."""
    path = Path(pattern).expanduser()
    if path.exists():
        return [path]
    matches = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
    return sorted(match for match in matches if match.is_file())
