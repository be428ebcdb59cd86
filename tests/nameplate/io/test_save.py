from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from safetensors.numpy import load_file

import nameplate
from nameplate.errors import FileFormatError, NameplateError
from nameplate.graph import keras_private
from nameplate.io.save import SavingError, load, save
from nameplate.naming.policy import NamingError
from tests.nameplate.naming_models import KINDS, Net, functional, nested, subclassed

BUILT = {name: make for name, make in KINDS.items() if name != "unbuilt"}


@pytest.mark.parametrize("make", BUILT.values(), ids=BUILT.keys())
def test_every_kind_comes_back_with_its_names_and_weights(make: Any, tmp_path: Path) -> None:
    model = nameplate.rename(make(), lambda layer: f"x_{layer.name}")
    save(model, tmp_path / "m.keras")
    with keras_private.live_code():  # as keras.config.enable_unsafe_deserialization(), for this block
        loaded = load(tmp_path / "m.keras", trust=True)

    before, after = nameplate.read(model), nameplate.read(loaded)
    assert list(nameplate.layers(loaded)) == list(nameplate.layers(model))
    assert all(np.array_equal(before[name], after[name]) for name in before if not name.endswith("/state"))
    assert [v.path.rpartition("/")[0] for v in loaded.weights] == [v.path.rpartition("/")[0] for v in model.weights]


@pytest.mark.parametrize("bad", ["norm", "a/b", "a:0", " ", "é", 5])
def test_a_name_that_could_not_be_loaded_is_not_saved(bad: Any, tmp_path: Path) -> None:
    model = functional()
    model.get_layer("hidden").name = bad

    with pytest.raises(NamingError, match="not saved"):
        save(model, tmp_path / "m.keras")
    assert not list(tmp_path.iterdir())


class Forgetful(layers.Layer):
    def __init__(self, table: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = table

    def get_config(self) -> dict[str, Any]:
        return super().get_config()

    def call(self, x: Any) -> Any:
        return x


def test_a_model_that_keras_could_not_load_is_not_saved(tmp_path: Path) -> None:
    x = keras.Input((3,), name="x")
    model = keras.Model(x, Forgetful(object(), name="table")(x), name="m")

    with pytest.raises(SavingError, match="not saved, since it could not be loaded again"):
        save(model, tmp_path / "m.keras")
    assert not list(tmp_path.iterdir())


def test_the_file_that_was_there_stays_when_saving_is_refused(tmp_path: Path) -> None:
    save(functional(), tmp_path / "m.keras")
    before = (tmp_path / "m.keras").read_bytes()
    model = functional()
    model.get_layer("hidden").name = "norm"

    with pytest.raises(NamingError):
        save(model, tmp_path / "m.keras")
    assert (tmp_path / "m.keras").read_bytes() == before


def test_a_lambda_in_a_file_needs_trust(tmp_path: Path) -> None:
    save(KINDS["custom"](), tmp_path / "m.keras")

    with pytest.raises(FileFormatError, match=r"(?s)double: a Lambda is code.*trust=True only if"):
        load(tmp_path / "m.keras")
    with pytest.raises(FileFormatError, match="safe mode still rejects Python lambdas"):
        load(tmp_path / "m.keras", trust=True)


def test_plain_keras_reads_what_was_saved(tmp_path: Path) -> None:
    save(nested(), tmp_path / "m.keras")

    assert keras.saving.load_model(tmp_path / "m.keras").get_layer("backbone").name == "backbone"


def test_a_loaded_model_can_be_renamed_on_the_way(tmp_path: Path) -> None:
    save(nested(), tmp_path / "m.keras")

    assert "trunk/c1" in nameplate.layers(load(tmp_path / "m.keras", rename={"backbone": "trunk"}))


def test_new_layers_get_other_automatic_names_than_a_loaded_models(tmp_path: Path) -> None:
    x = keras.Input((3,), name="x")
    keras.Model(x, layers.AlphaDropout(0.1, name="alpha_dropout_70")(x), name="m").save(tmp_path / "m.keras")
    load(tmp_path / "m.keras")

    assert layers.AlphaDropout(0.1).name == "alpha_dropout_71"


def test_a_subclassed_models_renamed_parts_come_back(tmp_path: Path) -> None:
    model = nameplate.rename(subclassed(), {"stem": "entry", "body/first": "one"})
    save(model, tmp_path / "m.keras")
    loaded = load(tmp_path / "m.keras")

    assert isinstance(loaded, Net)
    assert {"entry", "body/one"} <= set(nameplate.layers(loaded))


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x05\x06" + bytes(18)])
def test_a_file_that_is_no_model_is_told(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    path.write_bytes(content)

    with pytest.raises(NameplateError, match=r"m\.keras"):
        load(path)


def test_names_that_do_not_fit_the_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    functional().save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("nameplate.json", '{"version": 1, "names": [["a", "a", []]]}')

    with pytest.raises(FileFormatError, match=r"names for 0 layers, which are not"):
        load(path)


def test_only_keras_files_hold_whole_models(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"saved to and loaded from \.keras files"):
        save(functional(), tmp_path / "m.h5")
    with pytest.raises(SavingError, match=r"for \.pt and \.pth files"):
        save(functional(), tmp_path / "m.keras", modules={"a": "hidden"})


@pytest.mark.parametrize("make", BUILT.values(), ids=BUILT.keys())
@pytest.mark.parametrize("ending", [".safetensors", ".weights.h5"])
def test_weights_of_every_kind_are_saved_by_name(make: Any, ending: str, tmp_path: Path) -> None:
    model = make()
    save(model, tmp_path / f"m{ending}")
    other = make()
    report = nameplate.load_weights(other, tmp_path / f"m{ending}")

    before, after = nameplate.read(model), nameplate.read(other)
    assert set(report.loaded) >= {name for name in before if not name.endswith("/state")}
    assert all(np.array_equal(before[name], after[name]) for name in report.loaded)


def test_plain_keras_and_safetensors_read_what_was_saved(tmp_path: Path) -> None:
    model, other = nested(), nested()
    save(model, tmp_path / "m.weights.h5")
    save(model, tmp_path / "m.safetensors")
    other.load_weights(tmp_path / "m.weights.h5")

    assert all(np.array_equal(one, two) for one, two in zip(model.get_weights(), other.get_weights(), strict=True))
    assert load_file(tmp_path / "m.safetensors").keys() == nameplate.read(model).keys()


def test_a_keras_file_with_a_lambda_is_saved_but_nothing_of_it_runs_on_the_way(tmp_path: Path) -> None:
    save(KINDS["custom"](), tmp_path / "m.keras")

    assert set(load(tmp_path / "m.keras", only=["logits"])) == {"logits/kernel", "logits/bias"}


class Frozen(keras.layers.Layer):
    """A layer that makes its parts itself: trainable, whatever it is asked to be."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.one = layers.Dense(2, name="one")
        self.two = layers.Dense(2, name="two")

    def build(self, shape: Any) -> None:
        self.one.build(shape)
        self.two.build((*shape[:-1], 2))

    def call(self, inputs: Any) -> Any:
        return self.two(self.one(inputs))


def test_flags_inside_a_layer_of_the_users_come_back(tmp_path: Path) -> None:
    x = keras.Input((3,), name="x")
    model = keras.Model(x, layers.Dense(1, name="head")(Frozen(name="frozen")(x)), name="net")
    model.get_layer("frozen").trainable = False
    model.get_layer("frozen").two.trainable = True
    nameplate.save(model, tmp_path / "net.keras")

    loaded = nameplate.load(tmp_path / "net.keras", custom_objects={"Frozen": Frozen})
    flags = {name: layer.trainable for name, layer in nameplate.layers(loaded).items() if name.startswith("frozen")}
    assert flags == {"frozen": False, "frozen/one": False, "frozen/two": True}
    assert [variable.path for variable in loaded.trainable_variables] == [
        "frozen/two/kernel",
        "frozen/two/bias",
        "head/kernel",
        "head/bias",
    ]
