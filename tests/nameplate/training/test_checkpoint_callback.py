"""`nameplate.callbacks.Checkpoint`: named checkpoints and resume for those who stay with `model.fit`."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import nameplate
from nameplate import checkpoint as store
from nameplate.errors import NameplateError, StoppedError
from nameplate.naming.policy import NamingError
from nameplate.training.config_diff import ConfigDiffError
from tests.nameplate.training.script import At, examples, network


@pytest.fixture(autouse=True)
def _scope(strategy: Any) -> Any:
    with strategy.scope():
        yield


def fit(run: Path, *more: keras.callbacks.Callback, model: keras.Model | None = None, **given: Any) -> keras.Model:
    model = model or network()
    x, y = examples()
    options: dict[str, Any] = {"epochs": 4, "batch_size": 16, "shuffle": False, "verbose": 0} | given
    checkpoint = options.pop("checkpoint", nameplate.Checkpoint(monitor="loss"))
    changed = options.pop("resume_changed", ())
    saves = nameplate.callbacks.Checkpoint(run, checkpoint, resume_changed=changed, verbose=0)
    model.fit(x, y, callbacks=[saves, *more], **options)
    return model


def weights(run: Path) -> dict[str, np.ndarray]:
    return store.open(nameplate.Run.open(run).latest).weights.load()


def fail() -> None:
    raise RuntimeError("the user's program fails")


def test_stopped_between_epochs_it_ends_as_the_whole_training(tmp_path: Path) -> None:
    fit(tmp_path / "whole")
    fit(tmp_path / "parts", epochs=2)
    model = fit(tmp_path / "parts")
    whole = weights(tmp_path / "whole")
    for name, value in weights(tmp_path / "parts").items():
        np.testing.assert_array_equal(value, whole[name])
    np.testing.assert_array_equal(model.get_layer("hidden").kernel.numpy(), whole["hidden/kernel"])
    latest = store.open(nameplate.Run.open(tmp_path / "parts").latest)
    assert latest.manifest.about["history"]["epoch"] == [0, 1, 2, 3]
    assert "hidden/kernel@momentum" in latest.optimizer


def test_after_a_failure_the_same_process_goes_on(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fit(tmp_path / "a", At(11, fail))
    model = fit(tmp_path / "a")
    whole = fit(tmp_path / "whole")
    np.testing.assert_array_equal(model.get_layer("hidden").kernel.numpy(), whole.get_layer("hidden").kernel.numpy())


def test_a_signal_saves_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nameplate.training.script_run.in_notebook", lambda: True)  # else it would end this process
    with pytest.raises(StoppedError, match="SIGUSR1 after step"):
        fit(tmp_path / "a", At(3, lambda: os.kill(os.getpid(), signal.SIGUSR1)))
    assert list(nameplate.Run.open(tmp_path / "a").checkpoints) == [4]
    assert (tmp_path / "a" / "requeue.json").exists()


def test_what_a_run_refuses_is_refused(tmp_path: Path) -> None:
    fit(tmp_path / "a", epochs=1)
    with pytest.raises(ConfigDiffError, match=r"optimizer\.learning_rate"):
        fit(tmp_path / "a", model=network(rate=0.5))
    fit(tmp_path / "a", model=network(rate=0.5), epochs=2, resume_changed=["optimizer"])
    with pytest.raises(NameplateError, match="run=5"):
        nameplate.callbacks.Checkpoint(5)  # type: ignore[arg-type]
    automatic = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)], name="net")
    automatic.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(NamingError):
        fit(tmp_path / "b", model=automatic)
    assert not (tmp_path / "b").exists()
