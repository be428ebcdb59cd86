"""Which parts of a configuration are looked at before a model is built, and which names are built (F1, F8)."""

from __future__ import annotations

import inspect
import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import nameplate
from nameplate.errors import FileFormatError
from nameplate.formats import keras_config
from tests.nameplate.formats.test_hostile import rewritten

LAMBDA = {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "l", "function": {"class_name": "x"}}}


def known(_: str) -> bool:
    return False


def described(class_name: str, module: str) -> dict[str, Any]:
    return {"module": module, "class_name": class_name, "config": {"name": "a"}, "registered_name": None}


def test_every_layer_of_keras_that_only_computes_is_built() -> None:
    classes = {name for name, value in vars(layers).items() if inspect.isclass(value)}
    refused = {name for name in classes if keras_config.dangers(described(name, "keras.layers"), known=known)}
    assert refused == {"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "InputSpec"}


@pytest.mark.parametrize(
    ("module", "class_name"),
    [
        ("keras.models", "load_model"),
        ("keras.models", "model_from_json"),
        ("keras.src.models.cloning", "clone_model"),
        ("keras", "StatelessScope"),
        ("keras.src.layers.core.tfsm_layer", "Loader"),
        ("keras.src.layers.preprocessing.index_lookup", "IndexLookup"),
        ("keras.layers", "deserialize"),
        ("keras.src", "utils"),
    ],
)
def test_names_beside_layers_and_models_are_not_built(module: str, class_name: str) -> None:
    assert keras_config.dangers(described(class_name, module), known=known)


@pytest.mark.parametrize("part", ["build_config", "inbound_nodes"])
def test_what_a_layer_is_built_from_is_vetted_too(part: str, tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["config"]["layers"][1][part] = {"input_shape": [LAMBDA]}

    with pytest.raises(FileFormatError, match="l: a Lambda is code"):
        nameplate.load(rewritten(tmp_path / "m.keras", change))


def compiled_inside(path: Path) -> Path:
    """Save a model in a model, both compiled, with a loss that nobody has."""
    x = keras.Input((2,), name="x")
    inner = keras.Sequential([keras.Input((2,)), layers.Dense(3, name="deep")], name="inner")
    inner.compile("sgd", loss="mse")
    model = keras.Model(x, layers.Dense(1, name="a")(inner(x)), name="m")
    model.compile("sgd", loss="mse")
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["config.json"] = members["config.json"].replace(b'"loss": "mse"', b'"loss": ' + json.dumps(_LOSS).encode())
    assert members["config.json"].count(b"their_loss") >= 4  # twice in each
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


_LOSS = {"module": "their_losses", "class_name": "function", "config": "their_loss", "registered_name": "their_loss"}


def test_a_model_in_a_model_is_not_compiled_either(tmp_path: Path) -> None:
    path = compiled_inside(tmp_path / "m.keras")
    loaded = nameplate.load(path)

    assert not loaded.compiled
    assert not nameplate.layer(loaded, "inner").compiled
    assert np.array_equal(
        nameplate.read(loaded)["inner/deep/kernel"], nameplate.load(path, only=["*"])["inner/deep/kernel"]
    )


def test_only_what_compiles_is_left_out() -> None:
    config = {
        "class_name": "A",
        "config": {"compile_config": 1},
        "compile_config": LAMBDA,
        "list": [{"training_config": 2}],
    }
    assert keras_config.uncompiled(config) == {
        "class_name": "A",
        "config": {"compile_config": 1},
        "list": [{"training_config": 2}],
    }
    assert keras_config.dangers({"config": {"compile_config": LAMBDA}}, known=known)  # it stays, so it is looked at
