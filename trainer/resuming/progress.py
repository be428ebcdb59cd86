"""Where a run stands, and what a checkpoint tells of it beside arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from models.store.manifest import Manifest


@dataclass(frozen=True)
class Progress:
    """Where a run stands."""

    step: int = 0  # steps done
    epoch: int = 0  # index of the epoch that the next step belongs to
    position: int = 0  # examples of that epoch consumed
    finished: bool = False  # nothing is left to train, e.g. because it stopped early
    history: Mapping[str, Any] = field(default_factory=dict)  # Keras' History: epochs, and values by name
    best: float | None = None  # the best monitored value so far
    rollbacks: int = 0  # how often the run went back because of NaN
    passed_over: tuple[int, int] = (0, 0)  # the steps after the first of these, up to the second, train nothing


@dataclass(frozen=True)
class Texts:
    """What a checkpoint holds beside arrays, the same for the whole run."""

    model: str  # the Keras configuration, JSON
    config: str  # the resolved configuration, YAML
    classes: Mapping[str, str]  # variable name -> class of its layer
    about: Mapping[str, Any]  # provenance and versions


def progress_of(manifest: Manifest, monitor: str) -> Progress:
    """Return where a checkpoint's run stood; its best value counts where it is of the same measured value."""
    about = manifest.about
    best = about["best"]
    kept = best["value"] if best["monitor"] == monitor else None
    rollbacks = about.get("rollbacks", {})  # the first checkpoints of the format have none
    return Progress(
        step=manifest.step,
        epoch=manifest.epoch,
        position=manifest.position,
        finished=about["finished"],
        history=about["history"],
        best=None if kept is None else float(kept),
        rollbacks=rollbacks.get("count", 0),
        passed_over=tuple(rollbacks.get("passed_over", (0, 0))),
    )


def model_json(model: keras.Model) -> str:
    """Return the model's configuration as JSON; of a model that has none, its class and why."""
    try:
        return str(model.to_json())
    except (NotImplementedError, TypeError, ValueError) as error:
        return json.dumps({"class_name": type(model).__name__, "config": None, "reason": str(error).splitlines()[0]})
