"""What a training shows: a bar where a person looks on, with a time left that does not jump, and a line an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import nameplate
from nameplate.training.console import Screen

X = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
Y = X[:, :2].copy()


def compiled(strategy: Any) -> keras.Model:
    with strategy.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")], name="small")
        model.compile("sgd", "mse", metrics=["mae"])
    return model


def batches() -> Iterator[Any]:
    for first in range(0, 20, 5):
        yield X[first : first + 5], Y[first : first + 5]


FITS: dict[str, Callable[..., Any]] = {
    "in the graph": lambda model, **given: nameplate.fit(model, X, Y, batch_size=5, epochs=2, **given),
    "by batch": lambda model, **given: nameplate.fit(model, batches(), steps_per_epoch=2, epochs=2, **given),
}


@pytest.mark.filterwarnings("ignore:.*Your input ran out of data")  # Keras' word for any generator's end
@pytest.mark.parametrize("form", FITS)
def test_output_that_is_no_terminal_has_a_line_an_epoch(
    strategy: Any, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    model = compiled(strategy)
    FITS[form](model, verbose=0)
    nameplate.evaluate(model, X, Y, verbose=0)
    nameplate.predict(model, X, verbose=0)
    assert capsys.readouterr().out == ""
    for verbose in ("auto", 1, 2):
        FITS[form](model, verbose=verbose)
        lines = capsys.readouterr().out.splitlines()
        assert [line[:11] for line in lines] == ["epoch 1/2  ", "epoch 2/2  "]
    for inputs in (X, ((x,) for x, _ in batches())):
        nameplate.predict(model, inputs)
        assert capsys.readouterr().out.startswith("predicted ")
    for examples in ((X, Y), batches()):
        nameplate.evaluate(model, examples)
        assert capsys.readouterr().out.startswith("loss ")


@pytest.mark.parametrize("form", FITS)
@pytest.mark.parametrize("place", ["terminal", "notebook"])
def test_a_person_sees_a_bar(
    strategy: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, form: str, place: str
) -> None:
    monkeypatch.setattr(Screen, f"is_{place}", True)
    if place == "terminal":
        monkeypatch.setenv("FORCE_COLOR", "1")
    model = compiled(strategy)
    FITS[form](model)
    shown = capsys.readouterr().out
    assert "compiling" in shown
    assert shown.count("epoch 2/2  ") >= 1
    nameplate.evaluate(model, X, Y)
    assert "━" in capsys.readouterr().out or place == "notebook"
    FITS[form](model, verbose=2)
    assert "compiling" not in capsys.readouterr().out


def test_ragged_outputs_are_counted(strategy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with strategy.scope():
        inputs = keras.Input((None,), ragged=True)
        model = keras.Model(inputs, keras.layers.Lambda(lambda x: x, name="same")(inputs), name="ragged")
    nameplate.predict(model, tf.ragged.constant([[1.0], [2.0, 3.0], [4.0]]))
    assert capsys.readouterr().out.startswith("predicted 3 examples in ")
