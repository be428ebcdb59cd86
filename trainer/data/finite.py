"""Whether data holds numbers: NaN in it may pass through a training unseen, since a relu makes zero of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trainer.data.dataset import Dataset
from trainer.data.memory import Memory
from trainer.data.source import named

_PARTS = {"train": "to train on", "validation": "to validate on", "test": "to test on"}


def not_finite(dataset: Dataset) -> Iterator[str]:
    """Yield in words which arrays in memory hold NaN or infinite values, how many, and where the first is."""
    for part, purpose in _PARTS.items():
        source = getattr(dataset, part)
        if not isinstance(source, Memory):
            continue
        for column, default in zip(source.arrays(), ("x", "y", "sample_weight"), strict=False):
            for name, array in named(column, default).items():
                if rows := _spoilt_rows(array):
                    yield (
                        f"{name!r} of the examples {purpose} holds NaN or infinite values in {len(rows)} of "
                        f"{len(array)} examples, the first is number {rows[0]}; a loss need not show it"
                    )


def _spoilt_rows(array: np.ndarray | None) -> list[int]:
    if array is None or not np.issubdtype(array.dtype, np.floating):
        return []
    # One pass without a temporary: a sum is finite only where every number is. A large one may overflow all the same.
    with np.errstate(all="ignore"):
        if np.isfinite(array.sum()):
            return []
    return [index for index, row in enumerate(array) if not np.isfinite(row).all()]
