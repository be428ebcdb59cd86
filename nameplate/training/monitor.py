"""The monitored value: it decides which checkpoint is best and when to stop early, and must be one that is measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from nameplate.errors import worded
from nameplate.naming.names import did_you_mean
from nameplate.section import ConfigError
from nameplate.training.config import CheckpointConfig, EarlyStoppingConfig


def known_values(model: keras.Model, *, validated: bool) -> list[str]:
    """Return the names of the values that a run of this model measures at the end of an epoch, arrays excepted."""
    own = [name for name, value in model.get_metrics_result().items() if np.ndim(value) == 0]
    return own + ([f"val_{name}" for name in own] if validated else [])


def monitored(
    checkpoint: CheckpointConfig, early: EarlyStoppingConfig, known: list[str]
) -> tuple[str, list[keras.callbacks.Callback]]:
    """Return the name of the value that decides what is best, and the callbacks that monitor one.

    Raises:
        ConfigError: the run does not measure a value that is to be monitored.
    """
    wanted = {"checkpoint.monitor": checkpoint.monitor, "fit.early_stopping.monitor": early.monitor}
    problems = [
        f"{key}: {name!r} is not measured.{did_you_mean(name, known)} There are {', '.join(known)}"
        for key, name in wanted.items()
        if name is not None and name not in known
    ]
    if problems:
        raise ConfigError(problems, of=worded(keys="the configuration", arguments="the run"))
    callbacks = []
    if early.monitor is not None:
        stopping = keras.callbacks.EarlyStopping(
            monitor=early.monitor,
            patience=early.patience,
            min_delta=early.min_delta,
            restore_best_weights=early.restore_best,
            mode="max" if checkpoint.improves_upwards(early.monitor) else "min",
        )
        callbacks.append(stopping)
    return checkpoint.monitor or default_monitor(known), callbacks


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return measured values as single numbers; the elements of an array are `name/0`, `name/1` and so on."""
    single: dict[str, float] = {}
    for name, value in values.items():
        flat = np.ravel(value)
        single |= {name: value} if not np.ndim(value) else {f"{name}/{i}": float(each) for i, each in enumerate(flat)}
    return single


def default_monitor(known: Iterable[str]) -> str:
    """Return the validation accuracy if there is one, else the validation loss, else the loss."""
    held_out = [name for name in known if name.startswith("val_")]
    return next((name for name in held_out if "acc" in name), "val_loss" if held_out else "loss")
