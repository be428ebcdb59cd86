"""Weights that are loaded by name: what is only near a name is a suggestion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def normalizing(adapted: np.ndarray | None) -> keras.Model:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((3,), name="x")
    layer = keras.layers.Normalization(name="x_scale")
    if adapted is not None:
        layer.adapt(adapted)
    return keras.Model(inputs, keras.layers.Dense(2, name="label")(layer(inputs)), name="net")


WRITERS: dict[str, Callable[[keras.Model, Path], Any]] = {
    "load_weights": nameplate.load_weights,
    "write": lambda model, path: nameplate.write(model, nameplate.load(path)),
    "apply": lambda model, path: nameplate.apply(nameplate.plan(path, model), model),
}


@pytest.mark.parametrize("way", WRITERS)
def test_a_normalization_computes_with_the_statistics_that_were_loaded(way: str, tmp_path: Path) -> None:
    """Keras keeps constants of them, and renews those only where it loads a file itself."""
    data = np.random.default_rng(0).normal(5, 3, (64, 3)).astype("float32")
    source, target = normalizing(data), normalizing(None)
    nameplate.save(source, tmp_path / "a.safetensors")
    before = target.predict(data, verbose=0)  # traced with the constants of before
    model = WRITERS[way](target, tmp_path / "a.safetensors")
    model = model if way == "apply" else target
    np.testing.assert_array_equal(model.predict(data, verbose=0), source.predict(data, verbose=0))
    assert np.abs(before - model.predict(data, verbose=0)).max() > 1
