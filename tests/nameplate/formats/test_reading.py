"""Weights are read by name from every format, with everything accounted for."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import ml_dtypes
import numpy as np
import pytest
from keras import layers
from safetensors.numpy import save_file

import nameplate
from nameplate.errors import FileFormatError
from nameplate.formats import open_weights
from nameplate.io.load_weights import LoadingError, OrderWarning
from nameplate.naming.rules import RuleError
from nameplate.weights.named import WeightsError
from tests.nameplate.formats.files import image_model, keras_2, picture, sharded
from tests.nameplate.naming_models import KINDS

Make = Callable[[keras.Model, Path], Path]
BUILT = {name: make for name, make in KINDS.items() if name not in ("unbuilt", "preprocessing")}


def plain(model: keras.Model) -> dict[str, np.ndarray]:
    return {name: value for name, value in nameplate.read(model).items() if not name.endswith("/state")}


def as_keras(model: keras.Model, folder: Path) -> Path:
    model.save(folder / "m.keras")
    return folder / "m.keras"


def as_weights(model: keras.Model, folder: Path) -> Path:
    model.save_weights(folder / "m.weights.h5")
    return folder / "m.weights.h5"


def as_keras_shards(model: keras.Model, folder: Path) -> Path:
    model.save_weights(folder / "m.weights.json", max_shard_size=1e-6)
    return folder / "m.weights.json"


def as_legacy(model: keras.Model, folder: Path) -> Path:
    model.save(folder / "m.h5")
    return folder / "m.h5"


def as_safetensors(model: keras.Model, folder: Path) -> Path:
    save_file(plain(model), folder / "m.safetensors")
    return folder / "m.safetensors"


def as_shards(model: keras.Model, folder: Path) -> Path:
    return sharded(folder, plain(model))


def as_saved_model(model: keras.Model, folder: Path) -> Path:
    model.export(folder / "m", verbose=False)
    return folder / "m"


def as_tensorflow(model: keras.Model, folder: Path) -> Path:
    import tensorflow as tf

    tf.train.Checkpoint(**{name.replace("/", "."): tf.Variable(value) for name, value in plain(model).items()}).write(
        str(folder / "ckpt-1")
    )
    return folder / "ckpt-1.index"


FORMATS = {
    make.__name__: make for make in (as_keras, as_weights, as_keras_shards, as_legacy, as_safetensors, as_shards)
}


@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS.keys())
def test_a_file_of_any_format_goes_into_a_model_by_name(make: Make, tmp_path: Path) -> None:
    source, target = image_model(1), image_model(2)
    report = nameplate.load_weights(target, make(source, tmp_path))

    assert report.plan.counts() == {"taken": len(plain(source))}
    assert all(np.array_equal(value, plain(target)[name]) for name, value in plain(source).items())
    assert np.array_equal(source(picture()), target(picture()))


@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS.keys())
def test_a_part_is_read_without_building_anything(make: Make, tmp_path: Path) -> None:
    source = image_model(1)
    found = nameplate.load(make(source, tmp_path), only=["body", "no*/gamma"])

    assert sorted(found) == ["body/deep/bias", "body/deep/kernel", "norm/gamma"]
    assert all(np.array_equal(value, nameplate.read(source)[name]) for name, value in found.items())
    with pytest.raises(WeightsError, match="Did you mean 'stem'"):
        nameplate.load(make(source, tmp_path / "."), only=["stemm"])


@pytest.mark.parametrize("make", BUILT.values(), ids=BUILT.keys())
def test_every_kind_of_model_is_read_by_name_at_every_level(make: Any, tmp_path: Path) -> None:
    source, target = make(), make()
    for index, variable in enumerate(source.weights):
        variable.assign(np.full(variable.shape, index + 1, variable.dtype))
    for file in (as_weights(source, tmp_path), as_keras(source, tmp_path)):
        report = nameplate.load_weights(target, file)
        assert report.plan.counts() == {"taken": len(plain(source))}
        assert all(np.array_equal(value, plain(target)[name]) for name, value in plain(source).items())


@pytest.mark.tensorflow
def test_a_saved_model_is_read_by_the_names_in_its_graph(tmp_path: Path) -> None:
    source = keras.Sequential([keras.Input((3,), name="x"), layers.Dense(2, name="a"), layers.Dense(2, name="b")])
    target = keras.Sequential([keras.Input((3,), name="x"), layers.Dense(2, name="a"), layers.Dense(2, name="b")])
    report = nameplate.load_weights(target, as_saved_model(source, tmp_path))

    assert report.plan.counts() == {"renamed": 4}  # the model's own name is in front of them
    assert np.array_equal(source.predict(np.ones((1, 3)), verbose=0), target.predict(np.ones((1, 3)), verbose=0))


def test_a_checkpoint_of_tensorflow_is_read_without_tensorflow(tmp_path: Path) -> None:
    source = image_model(1)
    path = as_tensorflow(source, tmp_path)
    code = (
        "import sys; from nameplate.formats import open_weights\n"
        "with open_weights(sys.argv[1]) as arrays: print(len(arrays), sum(float(a.sum()) for a in arrays.values()))\n"
        "assert not {'tensorflow', 'keras', 'h5py', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)

    count, total = done.stdout.split()
    assert int(count) == len(plain(source))
    assert float(total) == pytest.approx(sum(float(value.sum()) for value in plain(source).values()), rel=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", pytest.param("float64", marks=pytest.mark.tensorflow)])
@pytest.mark.parametrize("make", [as_weights, as_legacy, as_keras])
def test_number_formats_stay(make: Make, dtype: str, tmp_path: Path) -> None:
    x = keras.Input((3,), name="x")
    model = keras.Model(x, layers.Dense(2, name="a", dtype=dtype)(x), name="m")
    with open_weights(make(model, tmp_path)) as arrays:
        assert arrays.forms["a/kernel"].dtype == dtype
        assert np.array_equal(arrays["a/kernel"], nameplate.read(model)["a/kernel"])


def test_other_precision_is_told_and_cast_on_request(tmp_path: Path) -> None:
    model = image_model(1)
    save_file(
        {name: value.astype(ml_dtypes.bfloat16) for name, value in plain(model).items()}, tmp_path / "h.safetensors"
    )

    with pytest.raises(LoadingError, match="bfloat16 3 x 3 x 3 x 4 in the source, float32"):
        nameplate.load_weights(model, tmp_path / "h.safetensors")
    report = nameplate.load_weights(model, tmp_path / "h.safetensors", cast=True)
    assert report.plan.lines[0].detail == "bfloat16 to float32"


def test_files_of_keras_2_give_the_outputs_that_their_weights_say(tmp_path: Path) -> None:
    written = keras_2(tmp_path / "m.h5")
    model = nameplate.load(tmp_path / "m.h5")
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype("float32")

    assert list(nameplate.variables(model)) == [
        *("features/c1/kernel", "features/c1/bias"),
        *(f"features/bn/{each}" for each in ("gamma", "beta", "moving_mean", "moving_variance")),
        *("predictions/kernel", "predictions/bias"),
    ]
    assert np.allclose(model(x), by_hand(written, x), atol=1e-6)


def by_hand(written: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Return what the network of `keras_2` computes, in NumPy."""
    kernel = written["c1/depthwise_kernel:0"]
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    y = np.einsum("bhwcij,ijcm->bhwcm", windows, kernel).reshape(len(x), 4, 4, 6)
    y = np.maximum(y + written["c1/bias:0"], 0)
    y = (y - written["bn/moving_mean:0"]) / np.sqrt(written["bn/moving_variance:0"] + 1e-3)
    y = (y * written["bn/gamma:0"] + written["bn/beta:0"]).mean((1, 2))
    scores = y @ written["predictions/kernel:0"] + written["predictions/bias:0"]
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def test_a_weights_file_of_keras_2_goes_by_name(tmp_path: Path) -> None:
    keras_2(tmp_path / "m.h5")
    model = nameplate.load(tmp_path / "m.h5")
    wanted = nameplate.read(model)
    keras_2(tmp_path / "w.h5", config=None)
    nameplate.write(model, {name: value * 0 for name, value in wanted.items()})
    nameplate.load_weights(model, tmp_path / "w.h5")

    assert all(np.array_equal(value, wanted[name]) for name, value in nameplate.read(model).items())
    assert "predictions/bias" in nameplate.load(tmp_path / "w.h5")


def without_names(path: Path) -> None:
    """Take the names out, as keras 3.5 wrote the file and as `KerasFileEditor.resave_weights` does."""
    with h5py.File(path, "a") as file:
        file.visititems(lambda _, item: item.attrs.pop("name", None) and None)


def test_a_file_without_names_goes_by_order_only_on_request_and_with_a_warning(tmp_path: Path) -> None:
    source, target = image_model(1), image_model(2)
    path = as_weights(source, tmp_path)
    without_names(path)

    with pytest.raises(LoadingError, match="has no names: by_order=True"):
        nameplate.load_weights(target, path)
    with pytest.warns(OrderWarning, match="which cannot be checked"):
        nameplate.load_weights(target, path, by_order=True)
    assert all(np.array_equal(value, plain(target)[name]) for name, value in plain(source).items())


def test_by_order_is_refused_where_there_are_names(tmp_path: Path) -> None:
    with pytest.raises(LoadingError, match="has names"):
        nameplate.load_weights(image_model(), as_weights(image_model(), tmp_path), by_order=True)


@pytest.mark.parametrize("make", [as_weights, as_safetensors])
def test_no_match_at_all_is_an_error_even_for_a_part(make: Make, tmp_path: Path) -> None:
    other = nameplate.rename(image_model(), lambda layer: f"activation_{layer.name}")
    target = image_model(1)
    before = nameplate.read(target)
    for partial in (False, True):
        with pytest.raises(LoadingError, match=r"13 missing, 13 unexpected\); nothing was written(.|\n)*Not one name"):
            nameplate.load_weights(target, make(other, tmp_path), partial=partial)
    assert all(np.array_equal(value, before[name]) for name, value in nameplate.read(target).items())


def test_a_rename_map_takes_weights_along_and_a_rule_that_does_nothing_is_an_error(tmp_path: Path) -> None:
    path = as_weights(nameplate.rename(image_model(1), {"stem": "entry", "body": "trunk"}), tmp_path)
    target = image_model(2)

    report = nameplate.load_weights(target, path, rename={"entry": "stem", "trunk/deep": "body/deep"})
    assert report.plan.counts() == {"renamed": 4, "taken": 9}
    assert all(np.array_equal(value, plain(target)[name]) for name, value in plain(image_model(1)).items())
    with pytest.raises(RuleError, match="matches nothing"):
        nameplate.load_weights(target, path, rename={"entry": "stem", "trunk": "body", "tail": "head"})


def test_the_report_says_of_each_layer_what_became_of_it(tmp_path: Path) -> None:
    tensors = plain(image_model(1))
    tensors["stem/bias"] = np.zeros(5, "float32")
    del tensors["norm/beta"]
    tensors["extra/kernel"] = np.zeros(1, "float32")
    save_file(tensors, tmp_path / "m.safetensors")
    target = image_model(2)

    with pytest.raises(LoadingError, match=r"11 taken, 1 shape, 1 missing, 1 unexpected"):
        nameplate.load_weights(target, tmp_path / "m.safetensors")
    report = nameplate.load_weights(target, tmp_path / "m.safetensors", partial=True)
    assert report.layers()["stem"] == {"taken": 1, "shape": 1}
    assert report.layers()["norm"] == {"taken": 3, "missing": 1}
    assert report.layers()["extra"] == {"unexpected": 1}
    assert "shape       stem/bias" in str(report)


def test_only_the_named_part_of_a_model_is_written(tmp_path: Path) -> None:
    source, target = image_model(1), image_model(2)
    before = nameplate.read(target)
    report = nameplate.load_weights(target, as_weights(source, tmp_path), only=["body", "head/kernel"])

    assert set(report.loaded) == {"body/deep/kernel", "body/deep/bias", "head/kernel"}
    assert np.array_equal(nameplate.read(target)["head/kernel"], nameplate.read(source)["head/kernel"])
    assert np.array_equal(nameplate.read(target)["stem/kernel"], before["stem/kernel"])


def test_a_file_that_is_damaged_on_the_way_writes_nothing(tmp_path: Path) -> None:
    target = image_model(2)
    before = nameplate.read(target)

    class Failing(dict[str, np.ndarray]):
        def __getitem__(self, name: str) -> np.ndarray:
            if name == "head/kernel":
                raise FileFormatError("damaged")
            return super().__getitem__(name)

        def items(self) -> Any:
            return plain(image_model(1)).items()

    with pytest.raises(FileFormatError, match="damaged"):
        nameplate.load_weights(target, Failing(plain(image_model(1))))
    assert all(np.array_equal(value, before[name]) for name, value in nameplate.read(target).items())


def test_a_thousand_layers_need_no_list_of_names(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        for index in range(1000):
            group = file.create_group(f"layers/dense{f'_{index}' if index else ''}/vars")
            group.attrs["name"] = f"layer_with_a_rather_long_name_{index:04}" + "x" * 100
            group.create_dataset("0", data=np.full((1, 1), index, "float32"))
    with open_weights(tmp_path / "m.weights.h5") as arrays:
        assert len(arrays) == 1000
        assert arrays["layer_with_a_rather_long_name_0730" + "x" * 100 + "/kernel"][0, 0] == 730


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.weights.h5", "m.safetensors", "m.pt", "m.index", "m.txt", "m"])
def test_what_is_not_there_or_unknown_is_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=name.replace(".", r"\.")):
        open_weights(tmp_path / name)
    (tmp_path / name).write_bytes(b"\x93\0nothing of the kind")
    with pytest.raises(FileFormatError, match=name.replace(".", r"\.")):
        open_weights(tmp_path / name)


def test_index_and_shards_must_agree(tmp_path: Path) -> None:
    index = sharded(tmp_path, {"a/kernel": np.zeros(2, "float32"), "b/kernel": np.ones(2, "float32")})
    save_file({"c/kernel": np.zeros(2, "float32")}, tmp_path / "model-00002-of-00002.safetensors")

    with pytest.raises(FileFormatError, match="b/kernel: not in model-00002"):
        open_weights(index)


def test_no_warning_is_needed_to_read(tmp_path: Path) -> None:
    path = as_weights(image_model(), tmp_path)
    with warnings.catch_warnings(), open_weights(path) as arrays:
        warnings.simplefilter("error")
        assert arrays["head/kernel"].flags.writeable
