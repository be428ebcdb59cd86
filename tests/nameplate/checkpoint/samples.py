"""Snapshots for the tests of the store: small, and with every shape of trouble in them."""

from __future__ import annotations

import dataclasses
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from nameplate.checkpoint import Snapshot


def array(*shape: int, seed: int = 0, dtype: npt.DTypeLike = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def snapshot(step: int = 1200, **changes: Any) -> Snapshot:
    """A job at `step`, with arrays that differ from step to step."""
    made = Snapshot(
        step=step,
        epoch=3,
        position=640,
        weights={
            "stem_conv/kernel": array(3, 3, 1, 8, seed=step),
            "stem_conv/bias": array(8, seed=step + 1),
            "head/scale": np.array(step, np.float32),
            "head/kernel": array(8, 10, seed=step + 2, dtype=ml_dtypes.bfloat16),
            "head/none": np.zeros((0, 4), np.float16),
        },
        optimizer={
            "stem_conv/kernel@momentum": array(3, 3, 1, 8, seed=step + 3),
            "iteration": np.array(step, np.int64),
        },
        state={
            "dropout/seed_generator_state": np.array([step, 7], np.uint32),
            "metrics/seen": np.array([True, False]),
        },
        metrics={"loss": 1.0 / (1 + step), "val/accuracy": 0.5},
        model='{"class_name": "Functional"}\n',
        config="run: trial\nseed: 7\n",
        about={
            "best": float("inf"),
            "history": [{"loss": 0.5}, {"loss": None}],
            "versions": {"nameplate": "0.1.0"},
        },
        classes={"stem_conv/kernel": "Conv2D", "stem_conv/bias": "Conv2D", "head/kernel": "Dense"},
    )
    return dataclasses.replace(made, **changes)


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays have the same dtype, shape and bits."""
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
