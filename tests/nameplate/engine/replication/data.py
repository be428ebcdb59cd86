"""Arrays to train on, the same in every process."""

from __future__ import annotations

from typing import Any

import numpy as np


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    """Return numbers from a normal distribution."""
    return np.random.default_rng(seed).normal(size=shape)


def labels(size: int, classes: int = 10) -> np.ndarray:
    """Return class numbers."""
    return np.random.default_rng(1).integers(0, classes, size)


def images(size: int, *, mean: float = 0.0) -> tuple[Any, ...]:
    """Return small images with a class each."""
    return draw(size, 8, 8, 1) + mean, labels(size)


def vectors(size: int, *, mean: float = 0.0) -> tuple[Any, ...]:
    """Return vectors with two values to predict each."""
    return draw(size, 6) + mean, draw(size, 2, seed=2)


def pairs(size: int) -> tuple[Any, ...]:
    """Return two images with a class for each of two outputs."""
    x = {"left": draw(size, 8, 8, 1), "right": draw(size, 8, 8, 1, seed=1)}
    return x, {"same": labels(size, 2), "sum": labels(size, 19)}


def two_targets(size: int, *, weighted: bool) -> tuple[Any, ...]:
    """Return vectors with two targets, weighted each in its own way or not."""
    near, far = draw(size, 2, seed=3), draw(size, 2, seed=4)
    weights = {"near": np.abs(draw(size, seed=5)), "far": np.abs(draw(size, seed=6))}
    return (draw(size, 6), {"near": near, "far": far}, *([weights] if weighted else []))


def words(size: int, *, weighted: bool = False) -> tuple[Any, ...]:
    """Return sequences of numbers from 0, which is masked, with a value a position."""
    numbers = np.random.default_rng(7).integers(0, 6, (size, 5))
    weights = np.abs(draw(size, 5, seed=8))
    return (numbers, draw(size, 5, 1, seed=9), *([weights] if weighted else []))
