"""Adaptation: arrays fitted to another number of input channels or classes, by a named rule. NumPy only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nameplate.arguments import CheckedFields
from nameplate.errors import NameplateError
from nameplate.naming.names import did_you_mean

CLASSES = "classes"


class AdaptError(NameplateError):
    """A rule that cannot make an array fit."""


@dataclass(frozen=True)
class Classes(CheckedFields):
    """The class names of a source and a target, each in the order of its outputs."""

    source: tuple[str, ...]
    target: tuple[str, ...]

    def common(self) -> list[str]:
        """Return the classes that both have, in the target's order."""
        return [name for name in self.target if name in self.source]


def reshaped(
    rule: str, value: np.ndarray, shape: Sequence[int], *, own: np.ndarray | None = None, classes: Classes | None = None
) -> np.ndarray:
    """Return the source's array fitted to the target's shape.

    Args:
        rule: `repeat`, `slice` or `mean` for input channels, the second to last axis: `repeat` cycles through the
            source's channels, scaled so that their sum stays the same; `slice` takes the first ones; `mean` gives every
            channel an equal share of that sum. `classes` is for the last axis: classes that both have are taken from
            the source, the others from `own`.
        value: the source's array.
        shape: the target's shape.
        own: the target's array, for `classes`.
        classes: the meaning of the last axis, for `classes`.

    Raises:
        AdaptError: for an unknown rule, and for one that cannot bridge these shapes.
    """
    if problem := refusal(rule, value.shape, shape, classes):
        raise AdaptError(problem)
    if rule == CLASSES:
        assert own is not None
        assert classes is not None
        return _by_class(value, own, classes)
    return np.ascontiguousarray(CHANNELS[rule](value, shape[-2])).astype(value.dtype)


def refusal(rule: str, source: Sequence[int], target: Sequence[int], classes: Classes | None) -> str:
    """Return why a rule cannot bridge two shapes, or an empty string where it can."""
    known = [*CHANNELS, CLASSES]
    if rule not in known:
        return f"no rule {rule!r}; there are {', '.join(known)}.{did_you_mean(rule, known)}"
    source, target = tuple(source), tuple(target)
    if rule == CLASSES:
        if classes is None:
            return "the rule 'classes' needs the names of the classes on both sides"
        sizes = len(classes.source), len(classes.target)
        if (source[-1:], target[-1:]) != (sizes[:1], sizes[1:]) or source[:-1] != target[:-1]:
            return f"{source} and {target} do not have {sizes[0]} and {sizes[1]} classes along the last axis"
        return ""
    if len(source) < 2 or len(source) != len(target):
        return f"{source} and {target} have no input channels in common"
    if source[:-2] != target[:-2] or source[-1] != target[-1]:
        return f"{source} and {target} differ in more than input channels, the second to last axis"
    if rule == "slice" and target[-2] > source[-2]:
        return f"{source[-2]} input channels have no slice of {target[-2]}; repeat or mean can"
    return ""


def _repeat(value: np.ndarray, count: int) -> np.ndarray:
    channels = value.shape[-2]
    return np.take(value, np.arange(count) % channels, axis=-2) * (channels / count)


def _slice(value: np.ndarray, count: int) -> np.ndarray:
    return value[..., :count, :]


def _mean(value: np.ndarray, count: int) -> np.ndarray:
    channels = value.shape[-2]
    mean = value.astype(np.float64).mean(axis=-2, keepdims=True) * (channels / count)
    return np.repeat(mean, count, axis=-2)


def _by_class(value: np.ndarray, own: np.ndarray, classes: Classes) -> np.ndarray:
    mapped = np.array(own)
    for name in classes.common():
        mapped[..., classes.target.index(name)] = value[..., classes.source.index(name)]
    return mapped


CHANNELS: Mapping[str, Callable[[np.ndarray, int], np.ndarray]] = {"repeat": _repeat, "slice": _slice, "mean": _mean}
