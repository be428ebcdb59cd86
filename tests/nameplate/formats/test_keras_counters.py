"""`.keras` files from before keras 3.6: groups called by class and counter, named by the configuration beside them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from nameplate.formats import open_weights
from trainer.cli.ckpt import main as ckpt
from trainer.cli.names import main, read_table


def layer(module: str, kind: str, name: str, **config: Any) -> dict[str, Any]:
    """Return a layer as keras 3.3 wrote it."""
    about = {"name": name, "trainable": True, "dtype": "float32", **config}
    return {"module": module, "class_name": kind, "config": about, "registered_name": None, "name": name}


def dense(name: str, units: int) -> dict[str, Any]:
    return layer("keras.layers", "Dense", name, units=units, activation="linear", use_bias=True)


def image(name: str, size: int) -> dict[str, Any]:
    config = {"batch_shape": [None, size], "dtype": "float32", "sparse": False, "name": name}
    return {"module": "keras.layers", "class_name": "InputLayer", "config": config, "registered_name": None}


def norm(name: str) -> dict[str, Any]:
    return layer("keras.layers", "BatchNormalization", name, axis=-1, momentum=0.99, epsilon=0.001, center=True)


def old_file(path: Path, *, extra: bool = False) -> dict[str, np.ndarray]:
    """Write a file by hand, its names in no order that sorting would give; return its arrays by name."""
    tower = layer("keras", "Sequential", "tower", layers=[image("input_layer", 3), dense("z", 4), dense("a", 3)])
    times = layer("keras.layers", "TimeDistributed", "times", layer=dense("inside", 3))
    operator = {"module": "keras.src.ops.numpy", "class_name": "Multiply", "config": {"name": "multiply"}}
    listed = [image("x", 3), tower, dense("first", 3), times, norm("n"), operator, dense("head", 2)]
    model = layer("keras.src.models.functional", "Functional", "net", layers=listed, output_layers=[["head", 0, 0]])
    shapes = {"Dense": [(3, 3), (3,)]}
    places = {
        "layers/dense/vars": ("first", shapes["Dense"]),
        "layers/dense_1/vars": ("head", [(3, 2), (2,)]),
        "layers/sequential/layers/dense/vars": ("tower/z", [(3, 4), (4,)]),
        "layers/sequential/layers/dense_1/vars": ("tower/a", [(4, 3), (3,)]),
        "layers/time_distributed/layer/vars": ("times/inside", shapes["Dense"]),
    }
    numbers = np.random.default_rng(0)
    arrays = {}
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        for place, (name, wanted) in places.items():
            for index, (word, shape) in enumerate(zip(("kernel", "bias"), wanted, strict=True)):
                arrays[f"{name}/{word}"] = numbers.normal(size=shape).astype("float32")
                file[f"{place}/{index}"] = arrays[f"{name}/{word}"]
        for index, word in enumerate(("gamma", "beta", "moving_mean", "moving_variance")):
            arrays[f"n/{word}"] = numbers.normal(size=(3,)).astype("float32")
            file[f"layers/batch_normalization/vars/{index}"] = arrays[f"n/{word}"]
        if extra:
            file["layers/mystery/vars/0"] = np.zeros(2, "float32")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.3.3", "date_saved": "2024-05-01@00:00:00"}))
        archive.writestr("config.json", json.dumps(model))
        archive.write(path.with_suffix(".h5"), "model.weights.h5")
    path.with_suffix(".h5").unlink()
    return arrays


def test_an_old_file_lists_its_layers_once(tmp_path: Path) -> None:
    arrays = old_file(tmp_path / "old.keras")
    table = read_table(str(tmp_path / "old.keras"))
    names = ["x", "tower", "tower/z", "tower/a", "first", "times", "times/inside", "n", "multiply", "head"]
    assert [item.name for item in table.layers] == names
    assert {array.name: array.shape for array in table.arrays} == {name: each.shape for name, each in arrays.items()}
    assert main([str(tmp_path / "old.keras")]) == 0


def test_an_old_files_weights_are_read_by_name(tmp_path: Path) -> None:
    arrays = old_file(tmp_path / "old.keras")
    with open_weights(tmp_path / "old.keras") as found:
        assert not found.unnamed
        assert set(found) == set(arrays)
        assert all(np.array_equal(found[name], each) for name, each in arrays.items())
    assert ckpt(["convert", str(tmp_path / "old.keras"), str(tmp_path / "new.safetensors")]) == 0
    with open_weights(tmp_path / "new.safetensors") as converted:
        assert set(converted) == set(arrays)


def test_what_the_configuration_does_not_list_keeps_its_place_and_is_unnamed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old_file(tmp_path / "old.keras", extra=True)
    with open_weights(tmp_path / "old.keras") as found:
        assert found.unnamed
    main([str(tmp_path / "old.keras")])
    assert "mystery" in capsys.readouterr().out
