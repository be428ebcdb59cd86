"""How Hypothesis draws the cases of the differential harness: as many and from the seed that the environment says."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings

COUNT = int(os.environ.get("NAMEPLATE_CASES", "500"))
SEED = int(os.environ.get("NAMEPLATE_CASES_SEED", "0"))


def draw(test: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a property that collects its findings: nothing is shrunk, kept or timed."""
    configured = settings(
        max_examples=COUNT,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    return seed(SEED)(configured(test))
