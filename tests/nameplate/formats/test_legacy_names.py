"""Whole models that Keras 3 writes as `.h5`: loaded by name, whether their layers were named or Keras named them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import nameplate


def _sequential(*parts: keras.Layer, name: str | None = None) -> keras.Model:
    return keras.Sequential([keras.Input((4,)), *parts], name=name)


def _of_every_kind() -> list[keras.Layer]:
    return [
        layers.Dense(4),
        layers.Reshape((2, 2)),
        layers.LSTM(3, return_sequences=True),
        layers.Bidirectional(layers.GRU(2, return_sequences=True)),
        layers.TimeDistributed(layers.Dense(3)),
        layers.BatchNormalization(),
        layers.SeparableConv1D(2, 1),
        layers.LayerNormalization(),
        layers.Flatten(),
        layers.PReLU(),
        layers.Dense(2),
    ]


def _functional() -> keras.Model:
    inputs = x = keras.Input((4,))
    for layer in _of_every_kind():
        x = layer(x)
    return keras.Model(inputs, x)


def _attention() -> keras.Model:
    """Its layer has the name of one of its own parts."""
    inputs = keras.Input((4, 3))
    return keras.Model(inputs, layers.MultiHeadAttention(2, 2, name="query")(inputs, inputs))


MODELS: dict[str, Callable[[], keras.Model]] = {
    "sequential": lambda: _sequential(*_of_every_kind()),
    "functional": _functional,
    "sequential in sequential": lambda: _sequential(
        _sequential(layers.Dense(4), _sequential(layers.Dense(4))), layers.Dense(2)
    ),
    "a model called as a class": lambda: _sequential(layers.Dense(3, name="a"), layers.Dense(3), name="dense"),
    "a model called as its layer": lambda: _sequential(layers.Dense(3, name="m"), layers.Dense(3, name="x"), name="m"),
    "attention": _attention,
}


@pytest.mark.parametrize("name", MODELS)
def test_a_whole_h5_file_comes_back_whatever_its_names(tmp_path: Path, name: str) -> None:
    model, path = MODELS[name](), tmp_path / "model.h5"
    numbers = np.random.default_rng(0)
    model.set_weights([numbers.normal(size=value.shape) for value in model.get_weights()])
    expected = model.get_weights()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras calls the format legacy, through logging and as a warning
        model.save(path)
    loaded = nameplate.load(path)
    assert list(nameplate.layers(loaded)) == list(nameplate.layers(model))
    model.set_weights([np.zeros_like(value) for value in expected])
    nameplate.load_weights(model, path)
    for each in (loaded, model):
        for value, right in zip(each.get_weights(), expected, strict=True):
            np.testing.assert_array_equal(value, right)
