"""Whether arrays hold numbers: asked of weights before they become a good checkpoint."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

_SHOWN = 5


def not_finite(weights: Mapping[str, np.ndarray], slots: Mapping[str, np.ndarray], trained: Collection[str]) -> str:
    """Return in words which arrays are spoilt, empty when none is.

    A weight that gradients move must be finite. What they do not move may hold infinities on purpose (the mask of an
    attention), and so may a slot; NaN is wrong everywhere.
    """
    spoilt = [name for name, array in weights.items() if _spoilt(array, infinite=name in trained)]
    spoilt += [name for name, array in slots.items() if _spoilt(array, infinite=False)]
    if not spoilt:
        return ""
    more = f" and {len(spoilt) - _SHOWN} more" if len(spoilt) > _SHOWN else ""
    return f"{', '.join(spoilt[:_SHOWN])}{more} hold{'s' * (len(spoilt) == 1)} NaN or infinite values"


def _spoilt(array: np.ndarray, *, infinite: bool) -> bool:
    """Say whether there is a NaN, or an infinity where that counts."""
    if array.dtype.kind in "biuSU":
        return False
    # One pass without a temporary: a sum is finite only where every number is. A large one may overflow all the same.
    with np.errstate(all="ignore"):
        if np.isfinite(array.sum()):
            return False
    return bool((~np.isfinite(array) if infinite else np.isnan(array)).any())
