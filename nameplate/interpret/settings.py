"""How an image is dreamt: steps, sizes, what holds it together. Everything that a dream depends on beside its model."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from nameplate.errors import NameplateError
from nameplate.naming.names import did_you_mean


class SettingsError(NameplateError):
    """Settings of a dream that cannot be meant."""


class Parameters(enum.StrEnum):
    """What gradient ascent moves."""

    pixels = "pixels"  # each by itself: for an image that is there already
    fourier = "fourier"  # frequencies of opponent colours: for images from noise


@dataclass(frozen=True)
class Settings:
    """The settings of a dream."""

    parameters: Parameters = Parameters.pixels
    values: tuple[float, float] = (0.0, 1.0)  # the lowest and highest pixel that the model expects
    steps: int = 24  # of gradient ascent, at each size
    rate: float | None = None  # how far a step goes; None: 0.008 of the range for pixels, 0.05 for Adam on frequencies
    octaves: int = 1  # sizes, the last is the image's own
    octave_scale: float = 1.4  # between a size and the next
    jitter: int | None = None  # pixels the image is moved at most before each step; None: a whole sixteenth of its side
    tile: int | None = None  # pixels a side of what is computed at a time; None: the whole image
    tv: float = 0.0  # weight of total variation against the objective; 1 holds it down strongly
    detail: float = 1.0  # share of the start image's own detail that returns at each size
    seed: int = 0  # decides noise and jitter

    def __post_init__(self) -> None:
        found = [
            *([_no_parameters(self.parameters)] if self.parameters not in list(Parameters) else []),
            *([f"steps: {self.steps} is too small; at least 1"] if self.steps < 1 else []),
            *([f"octaves: {self.octaves} is too small; at least 1"] if self.octaves < 1 else []),
            *([f"octave_scale: {self.octave_scale} is too small; above 1"] if self.octave_scale <= 1 else []),
            *([f"rate: {self.rate} is too small; above 0"] if self.rate is not None and self.rate <= 0 else []),
            *(
                [f"jitter: {self.jitter} is too small; at least 0"]
                if self.jitter is not None and self.jitter < 0
                else []
            ),
            *([f"tile: {self.tile} is too small; at least 1"] if self.tile is not None and self.tile < 1 else []),
            *([f"tv: {self.tv} is too small; at least 0"] if self.tv < 0 else []),
            *([f"detail: {self.detail} is not a share, 0 to 1"] if not 0 <= self.detail <= 1 else []),
            *([f"seed: {self.seed} is out of range; 0 to {2**31 - 1}"] if not 0 <= self.seed < 2**31 else []),
            *(
                [f"values: {self.values} is no range; the lowest and the highest pixel"]
                if not _is_range(self.values)
                else []
            ),
        ]
        if found:
            raise SettingsError("\n  ".join(["a dream cannot have", *found]))

    @property
    def rate_of_step(self) -> float:
        """The length of a step."""
        if self.rate is not None:
            return self.rate
        return 0.05 if self.parameters == Parameters.fourier else 0.008

    def jitter_of(self, size: Sequence[int]) -> int:
        """Return the largest move of an image of this (height, width), in pixels."""
        return self.jitter if self.jitter is not None else min(size) // 16

    def in_range(self, pixels: np.ndarray) -> np.ndarray:
        """Return pixels as float32 in the range; uint8 are mapped onto it, floats are taken to be in it."""
        low, high = self.values
        if pixels.dtype == np.uint8:
            return (low + (high - low) * (pixels.astype(np.float32) / 255)).astype(np.float32)
        return np.clip(pixels.astype(np.float32), low, high)

    def as_bytes(self, pixels: np.ndarray) -> np.ndarray:
        """Return pixels of the range as uint8."""
        low, high = self.values
        share = (np.asarray(pixels, np.float32) - low) / (high - low)
        return np.round(np.clip(share, 0, 1) * 255).astype(np.uint8)

    def plain(self) -> dict[str, Any]:
        """Return the settings as JSON has them."""
        return asdict(self) | {"parameters": str(self.parameters), "values": list(self.values)}


def settings_of(base: Settings, options: dict[str, Any]) -> Settings:
    """Return `base` with these fields.

    Raises:
        SettingsError: fields that a dream does not have, with the nearest, or values that it cannot have.
    """
    known = [each.name for each in fields(Settings)]
    unknown = [name for name in options if name not in known]
    if unknown:
        told = "; ".join(f"no setting {name!r}.{did_you_mean(name, known)}" for name in unknown)
        raise SettingsError(f"{told} There are {', '.join(known)}")
    if "values" in options:
        options = options | {"values": tuple(float(each) for each in options["values"])}
    return replace(base, **options)


def _no_parameters(word: str) -> str:
    return f"parameters: {word!r} is not one of {', '.join(Parameters)}"


def _is_range(values: Sequence[float]) -> bool:
    return len(values) == 2 and bool(np.isfinite(values).all()) and values[0] < values[1]
