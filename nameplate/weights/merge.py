"""Merging weights of the same names and shapes: average, interpolation, task arithmetic.

Floating-point arrays are computed in double precision and rounded once, to the dtype of the first source. Integers and
booleans cannot be mixed; they must be equal in all sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nameplate.errors import NameplateError
from nameplate.weights.named import Weights

_SHOWN = 20


class MergeError(NameplateError):
    """Weights with different names, shapes or integers, or invalid shares."""


def average(sources: Sequence[Weights], shares: Sequence[float] | None = None) -> dict[str, np.ndarray]:
    """Return the mean of `sources`, weighted by `shares`: one per source, normalized to sum to 1; equal when None."""
    if not sources:
        raise MergeError("Nothing to average: no weights were given.")
    shares = [1.0] * len(sources) if shares is None else list(shares)
    if len(shares) != len(sources) or sum(shares) <= 0 or min(shares) < 0:
        raise MergeError(f"{len(sources)} sources need {len(sources)} shares of at least 0; received {shares}.")
    return _combine(sources, [share / sum(shares) for share in shares])


def interpolate(a: Weights, b: Weights, position: float) -> dict[str, np.ndarray]:
    """Return the weights on the straight line from `a` (position 0) to `b` (1); extrapolation is allowed."""
    return _combine([a, b], [1 - position, position])


def task_arithmetic(base: Weights, tuned: Sequence[Weights], scales: Sequence[float]) -> dict[str, np.ndarray]:
    """Return base + sum of scale * (tuned - base): `base` plus what each of `tuned` has learned beyond it, scaled.

    Ilharco et al., "Editing models with task arithmetic", ICLR 2023. A negative scale makes the model forget.
    """
    if not tuned or len(scales) != len(tuned):
        raise MergeError(f"{len(tuned)} tuned models need {len(tuned)} scales, one at least; received {list(scales)}.")
    return _combine([base, *tuned], [1 - sum(scales), *scales])


def _combine(sources: Sequence[Weights], factors: Sequence[float]) -> dict[str, np.ndarray]:
    """Return the sum of factor * source by name; a factor of 0 still counts, so that NaN is not hidden."""
    _require_alike(sources)
    merged: dict[str, np.ndarray] = {}
    unequal: list[str] = []
    for name, first in sources[0].items():
        arrays = [first, *(source[name] for source in sources[1:])]
        if _is_inexact(first.dtype):
            total = sum(factor * _wide(array) for factor, array in zip(factors, arrays, strict=True))
            merged[name] = np.asarray(total).astype(first.dtype)
        elif all(np.array_equal(first, array) for array in arrays[1:]):
            merged[name] = first
        else:
            unequal.append(f"  {name}: {first.dtype} with other values")
    _refuse("Integers cannot be mixed", unequal)
    return merged


def _require_alike(sources: Sequence[Weights]) -> None:
    first = sources[0]
    problems: list[str] = []
    for number, other in enumerate(sources[1:], start=2):
        problems += [f"  {name}: not in number {number}" for name in first.keys() - other.keys()]
        problems += [f"  {name}: only in number {number}" for name in other.keys() - first.keys()]
        for name in first.keys() & other.keys():
            here, there = _form(first, name), _form(other, name)
            if here != there:
                problems.append(f"  {name}: {here} in the first, {there} in number {number}")
    _refuse("These weights cannot be merged", problems)


def _form(weights: Weights, name: str) -> tuple[tuple[int, ...], bool]:
    """Return an array's shape and whether it is floating-point, from the manifest if the weights have one."""
    records: Mapping[str, object] | None = getattr(weights, "records", None)
    array: object = records[name] if records is not None else weights[name]
    return tuple(array.shape), _is_inexact(array.dtype)  # type: ignore[attr-defined]


def _is_inexact(dtype: np.dtype) -> bool:
    """Return whether `dtype` is floating-point or complex, including those of ml_dtypes, whose kind is V or f."""
    return dtype.kind in "fc" or (dtype.kind == "V" and dtype.name.startswith(("bfloat", "float")))


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _refuse(what: str, problems: Sequence[str]) -> None:
    if problems:
        more = [f"  ... and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise MergeError("\n".join([f"{what}; {len(problems)} differences:", *sorted(problems)[:_SHOWN], *more]))
