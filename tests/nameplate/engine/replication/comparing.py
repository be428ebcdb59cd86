"""How far the numbers of one strategy are from those of another, and how far they may be."""

from __future__ import annotations

import numpy as np

from tests.nameplate.engine.replication.cases import Training

Numbers = dict[str, np.ndarray]

# What is left is the order of summation: 1e-16 a sum in float64, 1e-7 in float32. Adam divides by the size of the
# gradient, so where one is nearly zero it makes 1e-16 into 1e-9 (its epsilon is 1e-7), and of that its own size.
PRECISE, ROUGH = (1e-7, 1e-8), (1e-4, 1e-5)  # relative, absolute
LOSSES = (2e-6, 1e-6)  # kept in float32 always


def of(training: str, numbers: Numbers) -> Numbers:
    """Return the numbers of one training out of those of a table."""
    return {key.rpartition("/")[2]: value for key, value in numbers.items() if key.rpartition("/")[0] == training}


def wrong(training: Training, found: Numbers, expected: Numbers) -> dict[str, float]:
    """Return what is further away than rounding explains, with its largest difference."""
    beyond = {}
    skipped = {"traces"} if training.reports else {"traces", "losses", "history"}
    for what in sorted((expected.keys() & found.keys()) - skipped):
        least = LOSSES if what in ("losses", "history") else (0.0, 0.0)
        relative, absolute = map(max, ROUGH if training.rough else PRECISE, least)
        if not np.allclose(found[what], expected[what], rtol=relative, atol=absolute):
            beyond[what] = float(np.max(np.abs(found[what] - expected[what])))
    return beyond
