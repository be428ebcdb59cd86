"""Where the examples come from when they are files of many: images and records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from trainer.config.data_base import MISSING, DataConfig, example, listed, unknown
from trainer.config.features import Encoding, Feature, parse_feature

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
