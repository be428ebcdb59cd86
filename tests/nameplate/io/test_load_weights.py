"""Weights that are loaded by name: what is only near a name is a suggestion."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import nameplate
from nameplate.checkpoint import save_tensors
from nameplate.io.load_weights import LoadingError


def adapted() -> keras.Model:
    """Return a model in which `d` lies inside `enc/adapter`."""
    x = keras.Input((3,), name="x")
    adapter = keras.Model(x, layers.Dense(2, name="d")(x), name="adapter")
    y = keras.Input((3,), name="y")
    encoder = keras.Model(y, adapter(y), name="enc")
    z = keras.Input((3,), name="z")
    return keras.Model(z, layers.Dense(1, name="out")(encoder(z)), name="net")


def test_c7_a_near_name_is_a_suggestion_and_a_rename_a_rule(tmp_path: Path) -> None:
    model = adapted()
    weights = {name.replace("enc/adapter/", "enc/"): value + 1 for name, value in nameplate.read(model).items()}
    save_tensors(tmp_path / "w.safetensors", weights)
    for source in (weights, tmp_path / "w.safetensors"):
        with pytest.raises(LoadingError) as refused:
            nameplate.load_weights(model, source)
        assert "unexpected  enc/d/kernel" in str(refused.value)
        assert "Did you mean 'enc/adapter/d/kernel'?" in str(refused.value)

    report = nameplate.load_weights(model, weights, rename={"enc/d": "enc/adapter/d"})
    assert len(report.loaded) == 4
    assert np.array_equal(nameplate.read(model)["enc/adapter/d/kernel"], weights["enc/d/kernel"])


def test_c7_a_container_that_is_not_here_is_not_taken_off() -> None:
    x = keras.Input((3,), name="x")
    model = keras.Model(x, layers.Dense(2, name="d")(x), name="net")
    weights = {f"enc/{name}": value + 1 for name, value in nameplate.read(model).items()}
    with pytest.raises(LoadingError, match="Not one name is in both"):
        nameplate.load_weights(model, weights)

    own = {name.replace("enc/", "net/"): value for name, value in weights.items()}  # the model's own name is its own
    assert len(nameplate.load_weights(model, own).loaded) == 2
