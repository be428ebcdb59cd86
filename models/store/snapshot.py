"""What is to be saved: a value, all of it in host memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Snapshot:
    """A training job at the end of a step, as arrays and plain data.

    The arrays must not change while the snapshot is being saved.
    """

    step: int  # steps done, over the whole run
    epoch: int  # index of the epoch that the next step belongs to
    position: int  # examples of that epoch consumed
    weights: Mapping[str, np.ndarray]  # qualified variable name -> array
    optimizer: Mapping[str, np.ndarray]  # slot -> array: "backbone/stem_conv/kernel@momentum"
    state: Mapping[str, np.ndarray]  # seeds, metrics, counters, by names of the same grammar
    metrics: Mapping[str, float]  # logged values: for showing, for the best, for retention
    model: str  # text of model.json
    config: str  # text of config.yaml
    about: Mapping[str, Any]  # plain JSON data: provenance, versions, history, state of callbacks
    classes: Mapping[str, str] = field(default_factory=dict)  # variable name -> class of its layer ("Conv2D")

    def groups(self) -> dict[str, Mapping[str, np.ndarray]]:
        """Return the arrays by the group of files that holds them."""
        return {"weights": self.weights, "optimizer": self.optimizer, "state": self.state}
