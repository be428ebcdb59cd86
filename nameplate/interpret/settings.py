"""The settings of a dream: everything that it depends on besides its model and its objective."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from nameplate.arguments import CheckedFields
from nameplate.errors import NameplateError
from nameplate.naming.names import did_you_mean
from nameplate.section import above, at_least


class SettingsError(NameplateError):
    """Settings that a dream cannot have."""


class Parameters(enum.StrEnum):
    """What gradient ascent moves."""

    pixels = "pixels"  # each independently: for dreams over an image
    fourier = "fourier"  # frequencies of opponent colours: for dreams from noise


@dataclass(frozen=True)
class Settings(CheckedFields):
    """The settings of a dream."""

    parameters: Parameters = Parameters.pixels
    values: tuple[float, float] = (0.0, 1.0)  # the lowest and highest pixel that the model expects
    steps: int = 24  # of gradient ascent, at each size
    rate: float | None = None  # length of a step; None: 0.008 of the range for pixels, 0.05 for Adam on frequencies
    octaves: int = 1  # number of sizes; the last is the image's own
    octave_scale: float = 1.4  # ratio of a size to the one before
    jitter: int | None = None  # pixels, at most, that the image moves before a step; None: a sixteenth of its side
    tile: int | None = None  # side in pixels of the tile that is computed at a time; None: the whole image
    tv: float = 0.0  # weight of the total variation, a penalty; 1 is strong
    detail: float = 1.0  # share of the start image's detail that is restored at each size
    seed: int = 0  # of noise and jitter

    def __post_init__(self) -> None:
        super().__post_init__()
        if problems := list(self._problems()):
            raise SettingsError("\n  ".join(["a dream cannot have", *problems]))

    def _problems(self) -> Iterator[str]:
        yield from at_least("steps", self.steps, 1)
        yield from at_least("octaves", self.octaves, 1)
        yield from above("octave_scale", self.octave_scale, 1)
        yield from above("rate", self.rate, 0)
        yield from at_least("jitter", self.jitter, 0)
        yield from at_least("tile", self.tile, 1)
        yield from at_least("tv", self.tv, 0)
        if not 0 <= self.detail <= 1:
            yield f"detail: {self.detail} is not a share, 0 to 1"
        if not 0 <= self.seed < 2**31:
            yield f"seed: {self.seed} is out of range; 0 to {2**31 - 1}"
        if not _is_range(self.values):
            yield f"values: {self.values} is not a range; give the lowest and the highest pixel"

    @property
    def rate_of_step(self) -> float:
        """The length of a step."""
        if self.rate is not None:
            return self.rate
        return 0.05 if self.parameters == Parameters.fourier else 0.008

    def jitter_of(self, size: Sequence[int]) -> int:
        """Return how far, at most, an image of this (height, width) moves, in pixels."""
        return self.jitter if self.jitter is not None else min(size) // 16

    def in_range(self, pixels: np.ndarray) -> np.ndarray:
        """Return pixels as float32 in the range: uint8 is scaled to it, floats are clipped to it."""
        low, high = self.values
        if pixels.dtype.kind not in "biuf":
            raise SettingsError(f"an image is an array of numbers, not of {pixels.dtype}")
        if pixels.dtype == np.uint8:
            return (low + (high - low) * (pixels.astype(np.float32) / 255)).astype(np.float32)
        return np.clip(pixels.astype(np.float32), low, high)

    def as_bytes(self, pixels: np.ndarray) -> np.ndarray:
        """Return pixels of the range as uint8."""
        low, high = self.values
        share = (np.asarray(pixels, np.float32) - low) / (high - low)
        return np.round(np.clip(share, 0, 1) * 255).astype(np.uint8)

    def plain(self) -> dict[str, Any]:
        """Return the settings as plain data for JSON."""
        return asdict(self) | {"parameters": str(self.parameters), "values": list(self.values)}


def settings_of(base: Settings, options: dict[str, Any]) -> Settings:
    """Return `base` with these options changed.

    Raises:
        SettingsError: unknown options, with the nearest, or values out of range.
    """
    known = [field.name for field in fields(Settings)]
    unknown = [name for name in options if name not in known]
    if unknown:
        problems = "; ".join(f"no setting {name!r}.{did_you_mean(name, known)}" for name in unknown)
        raise SettingsError(f"{problems} There are {', '.join(known)}")
    changed = replace(base, **options)
    low, high = changed.values
    return replace(changed, values=(float(low), float(high)))


def _is_range(values: Sequence[float]) -> bool:
    return len(values) == 2 and bool(np.isfinite(values).all()) and values[0] < values[1]
