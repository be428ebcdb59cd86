"""The data of this project: noisy waves of three shapes."""

from __future__ import annotations

import numpy as np


def examples(size: int = 1200, samples: int = 64, noise: float = 0.6, seed: int = 0) -> tuple[dict, dict]:
    """Return `signal` float32 (size, samples, 1), and `shape` (size,): 0 is a sine, 1 a square, 2 a sawtooth."""
    numbers = np.random.default_rng(seed)
    shape = numbers.integers(0, 3, size)
    turns = numbers.uniform(2, 5, (size, 1)) * np.linspace(0, 1, samples) + numbers.uniform(0, 1, (size, 1))
    waves = np.stack([np.sin(2 * np.pi * turns), np.sign(np.sin(2 * np.pi * turns)), 2 * (turns % 1) - 1])
    signal = waves[shape, np.arange(size)] + noise * numbers.normal(size=(size, samples))
    return {"signal": signal[..., None].astype("float32")}, {"shape": shape}
