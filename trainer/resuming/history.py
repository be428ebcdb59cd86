"""Keras' History over all the processes of a run: told to a checkpoint, and told again after a resume."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from trainer.resuming.progress import Progress


def history_of(model: keras.Model) -> dict[str, Any]:
    """Return the epochs and values of a model's History as plain data."""
    return {"epoch": list(model.history.epoch), "values": {k: _plain(v) for k, v in model.history.history.items()}}


def retell(history: keras.callbacks.History, progress: Progress) -> None:
    """Tell a History the epochs before; one that was under way when the run stopped is told again at its end."""
    epochs = progress.history.get("epoch", [])
    kept = [place for place, epoch in enumerate(epochs) if epoch < progress.epoch]
    history.epoch = [epochs[place] for place in kept]
    values = progress.history.get("values", {})
    history.history = {name: [_as_logged(series[place]) for place in kept] for name, series in values.items()}


def _plain(series: list[Any]) -> list[Any]:
    return [value.tolist() if isinstance(value, np.ndarray) else value for value in series]


def _as_logged(value: Any) -> Any:
    return np.array(value, np.float32) if isinstance(value, list) else value
