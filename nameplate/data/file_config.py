"""The schema of a TFRecord file's features, each declared in one short string."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nameplate.data.base_config import MISSING, DataConfig, example, listed, unknown

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


FEATURES_EXAMPLE = "'data.features={image: image 64x64x3, label: int64}'"


@dataclass(frozen=True)
class ImageFolderConfig(DataConfig):
    """A folder that has a folder of images for each class, or such folders for `train`, `val` and `test`."""

    root: str = field(default=MISSING, metadata=example("data.root=/data/flowers"))
    height: int = 64  # pixels; every image is resized to it
    width: int = 64  # pixels
    channels: int = 3  # 1: grey, 3: colour

    def source_problems(self) -> Iterator[str]:
        """Yield a folder that is not there and sizes that no image has."""
        if self.root != MISSING and not Path(self.root).expanduser().is_dir():
            what = "a file" if Path(self.root).expanduser().exists() else "no folder"
            yield f"data.root: {what} at {self.root!r}; give a folder with a folder of images for each class"
        for key in ("height", "width"):
            if getattr(self, key) < 1:
                yield f"data.{key}: {getattr(self, key)} is no size; at least 1 pixel"
        if self.channels not in (1, 3):
            yield f"data.channels: {self.channels} cannot be decoded; 1 (grey) or 3 (colour)"


@dataclass(frozen=True)
class RecordsConfig(DataConfig):
    """TFRecord files of `tf.train.Example`, with a declared feature schema."""

    # Paths or patterns of files.
    files: list[str] = field(default=MISSING, metadata=example("'data.files=[/data/train-*.tfrecord]'"))
    validation_files: list[str] = field(default_factory=list)  # paths or patterns; empty: a share of `files`
    test_files: list[str] = field(default_factory=list)  # paths or patterns; empty: a share of `files`
    # What each feature is, in the words of `features.parse_feature`.
    features: dict[str, str] = field(default=MISSING, metadata=example(FEATURES_EXAMPLE))
    inputs: list[str] = field(default_factory=lambda: ["image"])  # features that are inputs
    targets: list[str] = field(default_factory=lambda: ["label"])  # features that are targets
    sample_weight: str | None = None  # feature that is one weight an example
    classes: dict[str, int] = field(default_factory=dict)  # number of classes of each int64 target

    def source_problems(self) -> Iterator[str]:
        """Yield patterns that find nothing, and features that are used and not declared."""
        for key in ("files", "validation_files", "test_files"):
            if getattr(self, key) != MISSING:
                yield from _pattern_problems(f"data.{key}", getattr(self, key), must=key == "files")
        if self.features != MISSING:
            yield from self._feature_problems()

    def schema(self) -> dict[str, Feature]:
        """Return `{name: Feature}` of the features in use; for a configuration without problems."""
        used = [*self.inputs, *self.targets, *([self.sample_weight] if self.sample_weight else [])]
        return {name: parse_feature(self.features[name]) for name in used}

    def _feature_problems(self) -> Iterator[str]:
        parsed = {}
        for name, spec in self.features.items():
            try:
                parsed[name] = parse_feature(spec)
            except ValueError as error:
                yield f"data.features: {name}: {error}"
        for key in ("inputs", "targets"):
            if not getattr(self, key):
                yield f"data.{key}: empty; name at least one of the features {listed(self.features)}"
            yield from unknown(f"data.{key}", getattr(self, key), self.features, "declared feature")
        if self.sample_weight is not None:
            yield from unknown("data.sample_weight", [self.sample_weight], self.features, "declared feature")
        yield from unknown("data.classes", self.classes, self.targets, "target")
        for name in self.targets:
            feature = parsed.get(name)
            if feature and feature.dtype == "int64" and not feature.shape and name not in self.classes:
                yield f"data.classes: how many has {name!r}? e.g. 'data.classes={{{name}: 10}}'"
            if feature and feature.encoding is not Encoding.FIXED:
                yield f"data.targets: {name!r} is {self.features[name]!r}; a target is int64 or float32"


def find_files(patterns: list[str]) -> list[Path]:
    """Return the files that the patterns find, each once, in the order of patterns and then of names."""
    found = [each for pattern in patterns for each in _matches(pattern)]
    return list(dict.fromkeys(found))


def _matches(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.exists():
        return [path]
    found = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
    return sorted(each for each in found if each.is_file())


def _pattern_problems(key: str, patterns: list[str], *, must: bool) -> Iterator[str]:
    if must and not patterns:
        yield f"{key}: empty; e.g. '{key}=[/data/train-*.tfrecord]'"
    for pattern in patterns:
        if not _matches(pattern):
            yield f"{key}: no file matches {pattern!r}"
