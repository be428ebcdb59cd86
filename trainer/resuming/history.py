"""Keras' History over all the processes of a run: told to a checkpoint, and told again after a resume."""

from __future__ import annotations

from typing import Any

import keras

from trainer.resuming.progress import Progress


def history_of(model: keras.Model) -> dict[str, Any]:
    """Return the epochs and values of a model's History as plain data."""
    return {"epoch": list(model.history.epoch), "values": {k: list(v) for k, v in model.history.history.items()}}


def retell(history: keras.callbacks.History, progress: Progress) -> None:
    """Tell a History the epochs before; one that was under way when the run stopped is told again at its end."""
    epochs = progress.history.get("epoch", [])
    kept = [place for place, epoch in enumerate(epochs) if epoch < progress.epoch]
    history.epoch = [epochs[place] for place in kept]
    values = progress.history.get("values", {})
    history.history = {name: [series[place] for place in kept] for name, series in values.items()}
