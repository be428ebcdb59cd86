"""Named arrays as a value, and a small algebra over them: select, partition, map, difference.

A `Weights` is a dictionary or the lazy arrays of a file; selecting reads nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeAlias

import numpy as np

from nameplate.errors import NameplateError
from nameplate.naming.names import did_you_mean

Weights: TypeAlias = Mapping[str, np.ndarray]  # qualified variable name -> array


class WeightsError(NameplateError):
    """Patterns that match nothing, or weights that do not fit each other."""


@dataclass(frozen=True)
class Move:
    """The distance between two arrays of one shape."""

    largest: float  # max |a - b|; NaN where only one of them is a number
    relative: float  # |a - b| / |a| in the Euclidean norm; infinite when only a is zero


@dataclass(frozen=True)
class Difference:
    """All differences between `a` and `b`, each part sorted by name."""

    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    shape: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]  # name -> (in a, in b)
    dtype: Mapping[str, tuple[np.dtype, np.dtype]]
    moved: Mapping[str, Move]  # same shape, other values or another dtype
    same: tuple[str, ...]  # same shape, dtype and bits

    @property
    def empty(self) -> bool:
        """Whether `a` and `b` are equal, bit for bit."""
        return not (self.only_a or self.only_b or self.shape or self.dtype or self.moved)


def select(weights: Weights, patterns: Iterable[str]) -> Weights:
    """Return the part of `weights` that matches any of `patterns`, in the order of `weights`.

    A pattern is a variable (`head/kernel`), a layer or container with everything in it (`backbone`), or a shell pattern
    over the whole name (`*/bias`, `backbone/stage[12]*`; `*` crosses `/`). Raises `WeightsError` with every pattern
    that matches nothing.
    """
    patterns = list(patterns)
    require_matches(weights, patterns)
    return partition(weights, lambda name: any_matches(name, patterns))[0]


def partition(weights: Weights, belongs: Callable[[str], bool]) -> tuple[Weights, Weights]:
    """Return the part of `weights` whose names satisfy `belongs`, and the rest; nothing is read."""
    inside = {name: name for name in weights if belongs(name)}
    outside = {name: name for name in weights if name not in inside}
    return _View(weights, inside), _View(weights, outside)


def under(weights: Weights, origins: Mapping[str, str]) -> Weights:
    """Return weights under other names, `{name: name in weights}`; nothing is read."""
    return _View(weights, origins)


def map(weights: Weights, function: Callable[[str, np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
    """Return `function(name, array)` under every name."""
    return {name: function(name, array) for name, array in weights.items()}


def difference(a: Weights, b: Weights) -> Difference:
    """Return how `a` and `b` differ by name, shape, dtype and value; one array of each is in memory at a time."""
    shapes, dtypes, moved, same = {}, {}, {}, []
    for name in sorted(a.keys() & b.keys()):
        one, other = a[name], b[name]
        if one.dtype != other.dtype:
            dtypes[name] = (one.dtype, other.dtype)
        if one.shape != other.shape:
            shapes[name] = (one.shape, other.shape)
        elif one.dtype == other.dtype and _same_bits(one, other):
            same.append(name)
        else:
            moved[name] = distance(one, other)
    return Difference(
        tuple(sorted(a.keys() - b.keys())),
        tuple(sorted(b.keys() - a.keys())),
        shapes,
        dtypes,
        moved,
        tuple(same),
    )


def distance(a: np.ndarray, b: np.ndarray) -> Move:
    """Return the distance between two arrays of one shape, in double precision; NaN in both counts as equal."""
    one, other = _wide(a), _wide(b)
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(other - one)
    gap[(one == other) | (np.isnan(one) & np.isnan(other))] = 0  # infinity - infinity is NaN
    if not gap.size:
        return Move(0.0, 0.0)
    size, length = float(np.linalg.norm(one.ravel())), float(np.linalg.norm(gap.ravel()))
    relative = length / size if size else (math.inf if length else 0.0)
    return Move(float(gap.max()), relative)


def matches(name: str, pattern: str) -> bool:
    """Return whether `pattern` is `name` itself, a container of it, or a shell pattern that matches it."""
    return name == pattern or name.startswith((f"{pattern}/", f"{pattern}@")) or fnmatchcase(name, pattern)


def any_matches(name: str, patterns: Iterable[str]) -> bool:
    """Return whether one of the patterns matches `name`."""
    return any(matches(name, pattern) for pattern in patterns)


def require_matches(names: Collection[str], patterns: Iterable[str]) -> None:
    """Raise `WeightsError` with every pattern that matches none of `names`, each with the nearest name."""
    if unmatched := [pattern for pattern in patterns if not any(matches(name, pattern) for name in names)]:
        known = _addresses(names)
        lines = "\n".join(f"  {pattern!r}{did_you_mean(pattern, known)}" for pattern in unmatched)
        head = "1 pattern matches" if len(unmatched) == 1 else f"{len(unmatched)} patterns match"
        raise WeightsError(f"{head} none of the {len(names)} names:\n{lines}")


def _addresses(names: Iterable[str]) -> list[str]:
    """Return every name and every container of one, without repetition."""
    addresses: dict[str, None] = {}
    for name in names:
        parts = name.split("/")
        addresses |= dict.fromkeys("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
    return list(addresses)


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    raw = np.dtype(f"V{a.dtype.itemsize}")
    return a.size == 0 or bool(np.array_equal(_bytes(a, raw), _bytes(b, raw)))


def _bytes(array: np.ndarray, raw: np.dtype) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(raw).view(np.uint8)


def _wide(array: np.ndarray) -> np.ndarray:
    """Return the array in double precision, real or complex, with at least one dimension."""
    wide = np.complex128 if array.dtype.kind == "c" else np.float64
    return np.atleast_1d(array.astype(wide))


class _View(Mapping[str, np.ndarray]):
    """A part of other weights, or all of them under other names; reads through to them."""

    def __init__(self, whole: Weights, origins: Mapping[str, str]) -> None:
        self._whole = whole
        self._origins = origins

    def __getitem__(self, name: str) -> np.ndarray:
        return self._whole[self._origins[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._origins)

    def __len__(self) -> int:
        return len(self._origins)
