"""The `data` section of a configuration: a frozen dataclass for each kind of data; `common_config` has the base."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from nameplate.data.common_config import MISSING as MISSING
from nameplate.data.common_config import DataConfig as DataConfig
from nameplate.data.common_config import OnDamaged as OnDamaged
from nameplate.data.common_config import Resident as Resident
from nameplate.data.common_config import example as example
from nameplate.data.common_config import listed, unknown
from nameplate.data.specs import (
    TABLES,
    Encoding,
    Feature,
    array_headers,
    header_problems,
    matching_files,
    parse_feature,
)
from nameplate.naming.names import did_you_mean

TFDS = "tensorflow_datasets.data_source"


@dataclass(frozen=True)
class DigitsConfig(DataConfig):
    """The 1797 handwritten digits that ship with the project, 8 by 8 pixels; the end of the file is held out."""

    validation: float = 0.2  # share at the file's end, 360 digits; all ten digits are equally frequent there


@dataclass(frozen=True)
class DigitPairsConfig(DataConfig):
    """Pairs of digits; the targets are whether both are equal, and their sum."""

    validation: float = 0.2  # share of the digits whose pairs are held out; no digit is on both sides
    pairs: int = 8  # pairs that begin with each digit

    def source_problems(self) -> Iterator[str]:
        """Yield a number of pairs that is out of range, and folds."""
        if self.folds is not None:
            yield "data.folds: folds of pairs would share digits; data=digits has folds"
        if not 1 <= self.pairs <= 1000:
            yield f"data.pairs: {self.pairs} is out of range; 1 to 1000 pairs per digit"


@dataclass(frozen=True)
class SyntheticConfig(DataConfig):
    """Learnable examples generated from the run's seed, for benchmarks."""

    size: int = 4096  # examples, before shares are held out
    shape: list[int] = field(default_factory=lambda: [32, 32, 3])  # of every input
    classes: int = 10  # of every output
    inputs: list[str] = field(default_factory=lambda: ["image"])  # names of the inputs
    outputs: list[str] = field(default_factory=lambda: ["label"])  # names of the outputs
    noise: float = 1.0  # standard deviation of the noise; the patterns to learn have 1

    def source_problems(self) -> Iterator[str]:
        """Yield sizes that are out of range."""
        for key in ("size", "classes"):
            if not 2 <= getattr(self, key) < 2**31:
                yield f"data.{key}: {getattr(self, key)} is out of range; at least 2"
        if not self.shape or min(self.shape) < 1:
            yield f"data.shape: {self.shape} is not a shape; e.g. data.shape=[224,224,3]"
        for key in ("inputs", "outputs"):
            names = getattr(self, key)
            if not names or len(set(names)) != len(names):
                yield f"data.{key}: {names}; needs at least one name, and each only once"
        if self.noise < 0:
            yield f"data.noise: {self.noise} is too small; at least 0"


@dataclass(frozen=True)
class CustomDataConfig(DataConfig):
    """Data from your own callable: arrays, a dataset with random access, a `tf.data.Dataset`, a table, or several."""

    validation: float = 0.0  # share of what the callable returns; needs random access
    # Dotted name of the callable.
    _target_: str = field(default=MISSING, metadata=example("data._target_=pets.data trust=[pets]"))
    arguments: dict[str, Any] = field(default_factory=dict)  # keyword arguments of the callable
    classes: dict[str, int] = field(default_factory=dict)  # of an integer target; arrays: largest label + 1
    inputs: list[str] = field(default_factory=list)  # keys, if examples are dicts or rows, e.g. [image]; empty: tuples
    targets: list[str] = field(default_factory=list)  # keys of the targets, beside `inputs`, e.g. [label]
    sample_weight: str | None = None  # key of the weight of an example, beside `inputs`

    def source_problems(self) -> Iterator[str]:
        """Yield a `_target_` that is not a dotted name, and inputs without targets or the reverse."""
        if bool(self.inputs) != bool(self.targets) or (self.sample_weight and not self.inputs):
            yield "data.inputs, data.targets: both choose keys of examples that are dicts; give both, or none"
        if self._target_ != MISSING and not all(part.isidentifier() for part in self._target_.split(".")):
            yield f"data._target_: {self._target_!r} is not a dotted name; e.g. my_package.my_module.my_data"
        elif self._target_ != MISSING and "." not in self._target_:
            yield f"data._target_: {self._target_!r} names no module; e.g. my_package.{self._target_}"


@dataclass(frozen=True)
class TfdsConfig(CustomDataConfig):
    """A data set of TensorFlow Datasets that is prepared here as array_record files; trust=[tensorflow_datasets]."""

    _target_: str = TFDS  # what opens a split; needs trust
    name: str = field(
        default=MISSING, metadata=example("data.name=mnist trust=[tensorflow_datasets]")
    )  # of the builder
    data_dir: str | None = None  # where data sets are prepared; None: the package's own place
    split: str = "train"  # to train on, also a part such as train[:80%]
    validation_split: str | None = None  # to validate on, e.g. test; None: a share of `split`
    test_split: str | None = None  # for the final test; None: a share of `split`
    validation: float = 0.1  # share of `split`
    inputs: list[str] = field(default_factory=lambda: ["image"])  # features; images become floats in 0..1
    targets: list[str] = field(default_factory=lambda: ["label"])  # features

    def source_problems(self) -> Iterator[str]:
        """Yield what `CustomDataConfig` does, and a validation split beside folds."""
        yield from super().source_problems()
        if self.folds is not None and self.validation_split:
            yield "data.folds: data.validation_split is held out already; give one of the two"

    def parts(self) -> dict[str, dict[str, Any]]:
        """Return the arguments of `_target_` for each part of the data."""
        splits = {"train": self.split, "validation": self.validation_split, "test": self.test_split}
        common = {"name": self.name, "data_dir": self.data_dir, "download": False, **self.arguments}
        return {part: {**common, "split": split} for part, split in splits.items() if split}


@dataclass(frozen=True)
class ArraysConfig(DataConfig):
    """Arrays in an `.npz` file, or in a folder of `.npy` files that stay on disk and are read as needed."""

    path: str = field(default=MISSING, metadata=example("data.path=/data/train.npz"))  # file or folder
    validation_path: str | None = None  # the same keys, to validate on; None: a share of `path`
    test_path: str | None = None  # the same keys, for the final test; None: a share of `path`
    inputs: list[str] = field(default_factory=lambda: ["x"])  # keys; they name the model's inputs
    targets: list[str] = field(default_factory=lambda: ["y"])  # keys; they name the outputs
    sample_weight: str | None = None  # key of an array with one weight per example
    classes: dict[str, int] = field(default_factory=dict)  # of a target; not given: largest label + 1
    scale: float | None = None  # factor on every input, which becomes float32; e.g. 0.00392157 for bytes

    def source_problems(self) -> Iterator[str]:
        """Yield files that do not exist, keys that they do not have, and lengths that differ."""
        for key in ("inputs", "targets"):
            if not getattr(self, key):
                yield f"data.{key}: empty; at least one key, e.g. data.{key}=[{key[0]}]"
        yield from unknown("data.classes", self.classes, self.targets, "target")
        for key in ("path", "validation_path", "test_path"):
            if (value := getattr(self, key)) not in (None, MISSING):
                yield from self._file_problems(f"data.{key}", value)

    def keys(self) -> list[str]:
        """Return the keys that every file must have."""
        return [*self.inputs, *self.targets, *([self.sample_weight] if self.sample_weight else [])]

    def _file_problems(self, key: str, value: str) -> Iterator[str]:
        path = Path(value).expanduser()
        if not path.exists():
            yield f"{key}: nothing at {value!r}; give an .npz file or a folder of .npy files"
            return
        try:
            headers = array_headers(path)
        except (ValueError, OSError) as error:
            yield f"{key}: {value!r} cannot be read: {error}"
            return
        absent = [name for name in self.keys() if name not in headers]
        for name in absent:
            near = did_you_mean(name, headers)
            yield f"{key}: {value!r} has no array {name!r}; it has {listed(headers)}.{near}"
        if not absent:
            yield from header_problems(key, {name: headers[name] for name in self.keys()})


@dataclass(frozen=True)
class TableConfig(DataConfig):
    """A table in a CSV, Parquet, Arrow or Feather file: numbers and categories in, classes or numbers out."""

    # A file .csv with a header, .parquet, .arrow or .feather.
    path: str = field(default=MISSING, metadata=example("data.path=/data/table.parquet"))
    validation_path: str | None = None  # the same columns, to validate on; None: a share of `path`
    test_path: str | None = None  # the same columns, for the final test; None: a share of `path`
    inputs: list[str] = field(default_factory=list)  # columns of numbers; empty: all that have no other use
    categories: list[str] = field(default_factory=list)  # columns of text that are inputs: a number 0 or 1 a value
    named: bool = False  # each column is an input; false: one input `features`, a vector of all columns
    classes: list[str] = field(default_factory=list)  # columns to predict as classes, e.g. [species]
    values: list[str] = field(default_factory=list)  # columns to predict as numbers, e.g. [price]
    sample_weight: str | None = None  # column with one weight per example
    group: str | None = None  # column whose values are never divided between folds, e.g. patient
    delimiter: str = ","  # one character between the cells of a CSV file
    spelling: dict[str, str] = field(default_factory=dict)  # of classes and categories, e.g. {hgih: high}

    def source_problems(self) -> Iterator[str]:
        """Yield files that do not exist, and columns that cannot be used as asked."""
        if not self.classes and not self.values:
            yield "data.classes, data.values: nothing to predict; e.g. data.classes=[species]"
        if len(self.delimiter) != 1:
            yield f"data.delimiter: {self.delimiter!r}; exactly one character"
        used = [*self.inputs, *self.categories, *self.classes, *self.values]
        used += [column for column in (self.sample_weight, self.group) if column]
        for column in sorted({name for name in used if used.count(name) > 1}):
            uses = "inputs, categories, classes, values, sample_weight and group"
            yield f"data: the column {column!r} is used twice, among {uses}"
        if self.group and self.folds is None:
            yield "data.group: groups are kept together in folds; e.g. data.folds=5"
        elif self.group and self.test:
            yield "data.test: a share would divide the groups of data.group; give data.test_path"
        for key in ("path", "validation_path", "test_path"):
            value = getattr(self, key)
            if value not in (None, MISSING):
                yield from self._path_problems(f"data.{key}", Path(value).expanduser())

    def _path_problems(self, key: str, path: Path) -> Iterator[str]:
        if not path.is_file():
            yield f"{key}: no file at {str(path)!r}"
        elif path.suffix.lower() not in TABLES:
            yield f"{key}: {str(path)!r} is not a table; {', '.join(TABLES)}. data=csv reads any file as CSV"


@dataclass(frozen=True)
class CsvConfig(TableConfig):
    """A CSV table with a header, whatever its suffix: numbers and categories in, classes or numbers out."""

    path: str = field(default=MISSING, metadata=example("data.path=/data/table.csv"))  # the file

    def _path_problems(self, key: str, path: Path) -> Iterator[str]:
        if not path.is_file():
            yield f"{key}: no file at {str(path)!r}"
        elif path.suffix.lower() in TABLES[1:]:
            yield f"{key}: {str(path)!r} is not a CSV file; data=table reads it"


@dataclass(frozen=True)
class ImageFolderConfig(DataConfig):
    """A folder or zip file with one folder of images per class, or with `train`, `val` and `test` of that kind."""

    root: str = field(default=MISSING, metadata=example("data.root=/data/flowers"))  # the folder, or a .zip file
    labels: str | None = None  # table of classes, in the root, in each of its parts or elsewhere; None: folders are
    file_column: str = "file"  # of the table: the path of an image, from the folder that the table is in
    label_column: str = "label"  # of the table: its class
    spelling: dict[str, str] = field(default_factory=dict)  # of classes, e.g. {hgih: high} merges the two
    height: int = 64  # pixels; images are resized
    width: int = 64  # pixels
    channels: int = 3  # 1: grey, 3: colour

    def source_problems(self) -> Iterator[str]:
        """Yield a folder that does not exist, and sizes that are out of range."""
        root = Path(self.root).expanduser()
        if self.root != MISSING and not root.is_dir() and not (root.is_file() and root.suffix.lower() == ".zip"):
            what = "a file" if root.exists() else "no folder"
            yield f"data.root: {what} at {self.root!r}; give a folder with one folder of images per class, or a .zip"
        if self.labels is not None and PurePath(self.labels).suffix.lower() not in TABLES:
            yield f"data.labels: {self.labels!r} is not a table; {', '.join(TABLES)}, in a .zip file .csv"
        for key in ("height", "width"):
            if getattr(self, key) < 1:
                yield f"data.{key}: {getattr(self, key)} is too small; at least 1 pixel"
        if self.channels not in (1, 3):
            yield f"data.channels: {self.channels} cannot be decoded; 1 (grey) or 3 (colour)"


_FEATURES = "'data.features={image: image 64x64x3, label: int64}'"


@dataclass(frozen=True)
class RecordsConfig(DataConfig):
    """TFRecord files of `tf.train.Example`, with declared features."""

    # Paths or patterns of files.
    files: list[str] = field(default=MISSING, metadata=example("'data.files=[/data/train-*.tfrecord]'"))
    validation_files: list[str] = field(default_factory=list)  # paths or patterns; empty: a share of `files`
    test_files: list[str] = field(default_factory=list)  # paths or patterns; empty: a share of `files`
    # Name -> form, in the words of `specs.parse_feature`.
    features: dict[str, str] = field(default=MISSING, metadata=example(_FEATURES))
    inputs: list[str] = field(default_factory=lambda: ["image"])  # features that are inputs
    targets: list[str] = field(default_factory=lambda: ["label"])  # features that are targets
    sample_weight: str | None = None  # feature with one weight per example
    classes: dict[str, int] = field(default_factory=dict)  # number of classes of each int64 target

    def source_problems(self) -> Iterator[str]:
        """Yield patterns that match no file, and features that are used but not declared."""
        for key in ("files", "validation_files", "test_files"):
            if getattr(self, key) != MISSING:
                yield from _pattern_problems(f"data.{key}", getattr(self, key), required=key == "files")
        if self.features != MISSING:
            yield from self._feature_problems()

    def schema(self) -> dict[str, Feature]:
        """Return `{name: Feature}` of the features in use; the configuration must have no problems."""
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


def _pattern_problems(key: str, patterns: list[str], *, required: bool) -> Iterator[str]:
    if required and not patterns:
        yield f"{key}: empty; e.g. '{key}=[/data/train-*.tfrecord]'"
    for pattern in patterns:
        if not matching_files(pattern):
            yield f"{key}: no file matches {pattern!r}"


DATA_SCHEMAS: dict[str, type[DataConfig]] = {
    "digits": DigitsConfig,
    "digit_pairs": DigitPairsConfig,
    "arrays": ArraysConfig,
    "image_folder": ImageFolderConfig,
    "records": RecordsConfig,
    "csv": CsvConfig,
    "table": TableConfig,
    "synthetic": SyntheticConfig,
    "custom": CustomDataConfig,
    "tfds": TfdsConfig,
}
