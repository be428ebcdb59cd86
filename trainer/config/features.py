"""The schema of a TFRecord file's features, each declared in one short string."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

_SPEC = re.compile(r"(image|float32|int64|uint8)(?: (\d+(?:x\d+)*))?")


class Encoding(enum.StrEnum):
    """How a feature's values are stored."""

    FIXED = "fixed"  # a list of floats or of integers
    RAW = "raw"  # one byte string that holds the bytes of the array
    IMAGE = "image"  # one byte string that holds an encoded JPEG, PNG, GIF or BMP


@dataclass(frozen=True)
class Feature:
    """A declared feature: what an example has of it after decoding."""

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
    match = _SPEC.fullmatch(spec.strip())
    if not match:
        raise ValueError(f"{spec!r} declares nothing known; write e.g. {EXAMPLES}")
    dtype, size = match.groups()
    shape = tuple(int(each) for each in size.split("x")) if size else ()
    if 0 in shape:
        raise ValueError(f"{spec!r} has a dimension of 0")
    if dtype == "image":
        if len(shape) != 3 or shape[2] not in (1, 3):
            raise ValueError(f"{spec!r}: an image is height x width x channels (1 or 3), e.g. 'image 64x64x3'")
        return Feature(Encoding.IMAGE, "float32", shape)
    if dtype == "uint8":
        return Feature(Encoding.RAW, dtype, shape)
    return Feature(Encoding.FIXED, dtype, shape)


EXAMPLES = "'int64', 'float32 16', 'uint8 28x28x1', 'image 64x64x3'"
