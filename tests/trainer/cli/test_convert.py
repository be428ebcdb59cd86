"""`ckpt convert` and `trainer.names` over the files of others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import nameplate
from nameplate import checkpoint as store
from nameplate.formats import open_weights
from nameplate.training.config import CheckpointInitConfig
from nameplate.training.initial_weights import take_weights
from nameplate.weights.plan import WeightPlan
from tests.nameplate.formats.files import image_model, keras_2
from trainer.cli.ckpt import main
from trainer.cli.names import read_table


def dense() -> keras.Model:
    x = keras.Input((3,), name="x")
    y = layers.BatchNormalization(name="norm")(layers.Dense(4, name="hidden")(x))
    return keras.Model(x, layers.Dense(2, name="head")(y), name="net")


def run(path: Path, model: keras.Model) -> Path:
    """Write a run with one checkpoint of a model."""
    snapshot = store.Snapshot(
        *(3, 0, 0),
        nameplate.read(model),
        optimizer={},
        state={},
        metrics={},
        model=model.to_json(),
        config="",
        about={},
    )
    store.save(path / "checkpoints", snapshot)
    return path


def same(one: Any, other: Any) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one if not name.endswith("/state"))


@pytest.mark.parametrize("ending", [".keras", ".weights.h5", ".safetensors"])
def test_a_checkpoint_goes_to_a_file_and_back_into_a_run(ending: str, tmp_path: Path) -> None:
    model = image_model(1)
    source = run(tmp_path / "run", model)

    assert main(["convert", str(source), str(tmp_path / f"m{ending}")]) == 0
    assert main(["convert", str(tmp_path / f"m{ending}"), str(tmp_path / "back")]) == 0
    with store.open(store.checkpoints(tmp_path / "back" / "checkpoints")[-1]) as opened:
        named = {name for name in opened.weights if not name.rpartition("/")[2].isdigit()}
        assert len(opened.weights) == len(nameplate.load(tmp_path / f"m{ending}", only=["*"]))
        assert all(np.array_equal(opened.weights[name], nameplate.read(model)[name]) for name in named)


def test_a_checkpoint_loads_as_the_model_that_it_is_of(tmp_path: Path) -> None:
    model = image_model(1)
    source = store.checkpoints(run(tmp_path / "run", model) / "checkpoints")[-1]

    assert same(nameplate.read(model), nameplate.read(nameplate.load(source)))
    assert set(nameplate.load(source, only=["body"])) == {"body/deep/kernel", "body/deep/bias"}


def test_a_checkpoint_goes_to_pytorch_in_its_layout_with_modules_named(tmp_path: Path) -> None:
    model = dense()
    source = run(tmp_path / "run", model)
    assert main(["convert", str(source), str(tmp_path / "m.pt"), "layer.0=hidden", "layer.1=norm"]) == 0

    with open_weights(tmp_path / "m.pt") as arrays:
        assert list(arrays) == [
            *("layer.0.weight", "layer.0.bias", "layer.1.weight", "layer.1.bias", "layer.1.running_mean"),
            *("layer.1.running_var", "layer.1.num_batches_tracked", "head.weight", "head.bias"),
        ]
        assert np.array_equal(arrays["layer.0.weight"], nameplate.read(model)["hidden/kernel"].T)
    other = dense()
    nameplate.load_weights(other, tmp_path / "m.pt", rename={"layer.0": "hidden", "layer.1": "norm"})
    assert same(nameplate.read(model), nameplate.read(other))


def flattening() -> keras.Model:
    """Return a model with a square kernel behind a flattened picture of 2 x 2 pixels and 3 channels."""
    x = image = keras.Input((4, 4, 1), name="image")
    x = layers.Flatten(name="flat")(layers.Conv2D(3, 3, name="conv")(x))
    return keras.Model(image, layers.Dense(12, name="head")(x), name="net")


def test_c5_a_checkpoint_goes_to_pytorch_with_a_flattened_picture_in_its_order(tmp_path: Path) -> None:
    model, other = flattening(), flattening()
    source = run(tmp_path / "run", model)
    assert main(["convert", str(source), str(tmp_path / "m.pt")]) == 0
    nameplate.save(model, tmp_path / "same.pt")
    nameplate.load_weights(other, tmp_path / "m.pt")

    assert same(nameplate.read(model), nameplate.read(other))
    with open_weights(tmp_path / "m.pt") as here, open_weights(tmp_path / "same.pt") as there:
        assert all(np.array_equal(here[name], there[name]) for name in there)
        assert not np.array_equal(here["head.weight"], nameplate.read(model)["head/kernel"].T)


def test_c5_a_runs_first_weights_from_pytorch_are_in_keras_layout(tmp_path: Path) -> None:
    model, other = flattening(), flattening()
    nameplate.save(model, tmp_path / "m.pt", modules={"features.0": "conv", "fc": "head"})
    plans: list[WeightPlan] = []
    init = CheckpointInitConfig(path=str(tmp_path / "m.pt"), rename=["features.0=conv", "fc=head"])
    origins = take_weights(other, init, show=lambda *_: None, account=plans.append)

    assert same(nameplate.read(model), nameplate.read(other))
    assert origins["head/kernel"]["name"] == "fc.weight"
    detail = "fc=head; rows from 3 x 2 x 2 to 2 x 2 x 3"
    assert ("renamed", "head/kernel", "fc.weight", detail) in plans[0].rows()


def test_an_old_file_of_keras_becomes_a_new_one(tmp_path: Path) -> None:
    keras_2(tmp_path / "old.h5")
    assert main(["convert", str(tmp_path / "old.h5"), str(tmp_path / "new.keras")]) == 0

    assert same(
        nameplate.read(nameplate.load(tmp_path / "old.h5")),
        nameplate.read(keras.saving.load_model(tmp_path / "new.keras")),
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["convert", "w.safetensors", "m.keras"], "has weights but no model"),
        (["convert", "w.safetensors", "m.h5"], "such files are only read"),
        (["convert", "w.safetensors", "w.pt"], "no layout for"),
        (["convert", "w.safetensors", "run", "a=b"], "is for a .pt target"),
        (["rename", "w.safetensors", "m.keras", "head=tail"], "`ckpt convert` writes other formats"),
        (["convert", "w.safetensors", "w.safetensors"], "nothing is overwritten"),
    ],
)
def test_what_cannot_be_converted_is_refused_and_nothing_is_written(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    store.save_tensors(tmp_path / "w.safetensors", nameplate.read(dense()))

    assert main(arguments) == 2
    assert told in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["w.safetensors"]


def as_pytorch(path: Path) -> Path:
    nameplate.save(dense(), path / "m.pt")
    return path / "m.pt"


def as_saved_model(path: Path) -> Path:
    dense().export(path / "served", verbose=False)
    return path / "served"


@pytest.mark.parametrize("make", [as_pytorch, as_saved_model])
def test_the_names_of_other_formats_are_shown(make: Callable[[Path], Path], tmp_path: Path) -> None:
    table = read_table(str(make(tmp_path)))

    assert {item.name for item in table.layers} == {"hidden", "norm", "head"}
