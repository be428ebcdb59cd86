"""Where the examples come from: the kinds of source, each with its frozen dataclass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from nameplate.data.base_config import MISSING, DataConfig, Resident, example
from nameplate.data.file_config import ImageFolderConfig, RecordsConfig
from nameplate.data.table_config import ArraysConfig, CsvConfig

__all__ = [
    "DATA_SCHEMAS",
    "ArraysConfig",
    "CsvConfig",
    "CustomConfig",
    "DataConfig",
    "DigitPairsConfig",
    "DigitsConfig",
    "ImageFolderConfig",
    "RecordsConfig",
    "Resident",
    "SyntheticConfig",
]


@dataclass(frozen=True)
class DigitsConfig(DataConfig):
    """The 1797 handwritten digits that ship with the project, 8 by 8; the last of the file are held out."""

    validation: float = 0.2  # share of the file's end; any share has the ten digits alike. 0.2: 360 digits


@dataclass(frozen=True)
class DigitPairsConfig(DataConfig):
    """Pairs of those digits, to tell whether both show the same digit, and their sum."""

    validation: float = 0.2  # share of the digits whose pairs are held out; no digit is on both sides
    pairs: int = 8  # pairs that each digit begins

    def source_problems(self) -> Iterator[str]:
        """Yield a number of pairs that makes no data."""
        if not 1 <= self.pairs <= 1000:
            yield f"data.pairs: {self.pairs} is out of range; 1 to 1000 pairs a digit"


@dataclass(frozen=True)
class SyntheticConfig(DataConfig):
    """Examples made from the run's seed, with something to learn in them; for benchmarks."""

    size: int = 4096  # examples, before shares are held out
    shape: list[int] = field(default_factory=lambda: [32, 32, 3])  # of every input
    classes: int = 10  # of every output
    inputs: list[str] = field(default_factory=lambda: ["image"])
    outputs: list[str] = field(default_factory=lambda: ["label"])
    noise: float = 1.0  # standard deviation, where that of the patterns to learn is 1

    def source_problems(self) -> Iterator[str]:
        """Yield sizes that make no data."""
        for key in ("size", "classes"):
            if not 2 <= getattr(self, key) < 2**31:
                yield f"data.{key}: {getattr(self, key)} is out of range; at least 2"
        if not self.shape or min(self.shape) < 1:
            yield f"data.shape: {self.shape} is no shape; e.g. data.shape=[224,224,3]"
        for key in ("inputs", "outputs"):
            names = getattr(self, key)
            if not names or len(set(names)) != len(names):
                yield f"data.{key}: {names}; at least one name, and none twice"
        if self.noise < 0:
            yield f"data.noise: {self.noise} is too small; at least 0"


@dataclass(frozen=True)
class CustomConfig(DataConfig):
    """What a callable of the user's own returns: arrays, a source, a `tf.data.Dataset`, or several."""

    validation: float = 0.0  # share of what the callable returns; needs random access
    _target_: str = field(default=MISSING, metadata=example("data._target_=pets.data trust=[pets]"))
    arguments: dict[str, Any] = field(default_factory=dict)  # keyword arguments of the callable
    classes: dict[str, int] = field(default_factory=dict)  # of an integer target; arrays: largest label + 1

    def source_problems(self) -> Iterator[str]:
        """Yield a target that names nothing in a module."""
        if self._target_ != MISSING and not all(part.isidentifier() for part in self._target_.split(".")):
            yield f"data._target_: {self._target_!r} is no dotted name; e.g. my_package.my_module.my_data"
        elif self._target_ != MISSING and "." not in self._target_:
            yield f"data._target_: {self._target_!r} names no module; e.g. my_package.{self._target_}"


DATA_SCHEMAS: dict[str, type[DataConfig]] = {
    "digits": DigitsConfig,
    "digit_pairs": DigitPairsConfig,
    "arrays": ArraysConfig,
    "image_folder": ImageFolderConfig,
    "records": RecordsConfig,
    "csv": CsvConfig,
    "synthetic": SyntheticConfig,
    "custom": CustomConfig,
}
