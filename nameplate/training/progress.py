"""Where a run stands, and what its checkpoints hold beside arrays: history, configurations, versions, origins."""

from __future__ import annotations

import json
import math
import platform
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import keras
import numpy as np

from nameplate.checkpoint.manifest import Manifest
from nameplate.errors import cause
from nameplate.graph.constructor_arguments import completed
from nameplate.graph.tree import walk

_PACKAGES = ("nameplate", "tensorflow", "keras", "numpy")


def about(origins: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the versions in use, and for variables with initial values from a file the file, name and rule."""
    versions = {name: version(name) for name in _PACKAGES} | {"python": platform.python_version()}
    return {"versions": versions, "origins": dict(origins)}


@dataclass(frozen=True)
class Progress:
    """Where a run stands."""

    step: int = 0  # steps done
    epoch: int = 0  # index of the epoch that the next step belongs to
    position: int = 0  # examples of that epoch consumed
    finished: bool = False  # nothing is left to train, e.g. because it stopped early
    history: Mapping[str, Any] = field(default_factory=dict)  # Keras' History: epochs, and values by name
    best: float | None = None  # the best monitored value so far
    rollbacks: int = 0  # how often the run has gone back because of NaN
    passed_over: tuple[int, int] = (0, 0)  # the steps after the first of these, up to the second, train nothing


@dataclass(frozen=True)
class Texts:
    """What each checkpoint holds beside arrays, the same for the whole run."""

    model: str  # the Keras configuration, JSON
    config: str  # the resolved configuration, YAML
    classes: Mapping[str, str]  # variable name -> class of its layer
    about: Mapping[str, Any]  # provenance and versions


def progress_of(manifest: Manifest, monitor: str) -> Progress:
    """Return where a checkpoint's run stood; its best value counts if it is finite and of the same monitor."""
    about = manifest.about
    best = about["best"]
    kept = float(best["value"]) if best["monitor"] == monitor and best["value"] is not None else math.inf
    rollbacks = about.get("rollbacks", {})  # missing in the first checkpoints of the format
    return Progress(
        step=manifest.step,
        epoch=manifest.epoch,
        position=manifest.position,
        finished=about["finished"],
        history=about["history"],
        best=kept if math.isfinite(kept) else None,
        rollbacks=rollbacks.get("count", 0),
        passed_over=tuple(rollbacks.get("passed_over", (0, 0))),
    )


def model_json(model: keras.Model) -> str:
    """Return the model's configuration as JSON; for a model without one, its class and the reason."""
    try:
        with warnings.catch_warnings(), completed([model, *(entry.layer for entry in walk(model))]):
            warnings.simplefilter("ignore")  # of a lambda in `compile`: nothing is loaded from this text
            return str(model.to_json())
    except Exception as error:  # a class of the user's may raise anything
        return json.dumps({"class_name": type(model).__name__, "config": None, "reason": cause(error)})


def history_of(model: keras.Model) -> dict[str, Any]:
    """Return the epochs and values of a model's History as plain data."""
    return {"epoch": list(model.history.epoch), "values": {k: _plain(v) for k, v in model.history.history.items()}}


def restore_history(history: keras.callbacks.History, progress: Progress) -> None:
    """Restore the epochs before; one that was in progress when the run stopped is recorded again at its end."""
    epochs = progress.history.get("epoch", [])
    kept = [index for index, epoch in enumerate(epochs) if epoch < progress.epoch]
    history.epoch = [epochs[index] for index in kept]
    values = progress.history.get("values", {})
    history.history = {name: [_as_logged(series[index]) for index in kept] for name, series in values.items()}


def _plain(series: list[Any]) -> list[Any]:
    return [value.tolist() if isinstance(value, np.ndarray) else value for value in series]


def _as_logged(value: Any) -> Any:
    return np.array(value, np.float32) if isinstance(value, list) else value
