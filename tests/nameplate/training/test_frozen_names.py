"""Names freeze when a model is made ready to train; a later assignment is found at fit and at save."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import nameplate
from nameplate.naming.policy import NamingError
from tests.trainer.running import train

X = np.ones((8, 3), "float32")
Y = np.ones((8, 2), "float32")


def compiled(strategy: Any) -> keras.Model:
    with strategy.scope():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="head")], name="small")
        model.compile("sgd", "mse")
    return model


def test_a_name_assigned_between_two_fits_is_found(strategy: Any) -> None:
    model = compiled(strategy)
    nameplate.fit(model, (X, Y), batch_size=4)
    nameplate.fit(model, (X, Y), batch_size=4)
    model.get_layer("head").name = "tail"
    with pytest.raises(NamingError, match=r"head: 'head' became 'tail'"):
        nameplate.fit(model, (X, Y), batch_size=4)


def test_a_name_assigned_during_training_is_found_at_the_save(
    strategy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def assign(history: keras.callbacks.History, epoch: int, logs: Any = None) -> None:
        history.model.layers[-1].name = "other"

    monkeypatch.setattr(keras.callbacks.History, "on_epoch_begin", assign)
    with pytest.raises(NamingError, match=r"label: 'label' became 'other'"):
        train(tmp_path, "model=mlp", "run=a", "fit.steps=2")
    assert not list((tmp_path / "a" / "checkpoints").glob("step_*"))
