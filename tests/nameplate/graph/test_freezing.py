from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import nameplate
from nameplate.graph.name_contract import Frozen, freeze
from nameplate.naming.policy import NamingError
from tests.nameplate.naming_models import KINDS, functional, nested


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
def test_names_that_nobody_touched_are_sound(make: Any) -> None:
    model = make()

    frozen = freeze(model)
    frozen.check(model)
    assert [name for name, _ in frozen.layers] == list(nameplate.layers(model))


@pytest.mark.parametrize(
    ("place", "word"), [("deep/core/c1", "x"), ("backbone", "deep"), ("image", 5), ("logits", "a/b")]
)
def test_an_assignment_anywhere_in_the_tree_is_told_from_what_to_what(place: str, word: Any) -> None:
    model = nested()
    frozen = freeze(model)
    layer = nameplate.layer(model, place)
    was = layer.name
    layer.name = word

    with pytest.raises(NamingError, match=f"{place}: {was!r} became {word!r}"):
        frozen.check(model)
    layer.name = was
    frozen.check(model)


def test_the_models_own_name_and_several_changes_are_told_at_once() -> None:
    model = functional()
    frozen = freeze(model)
    model.name, model.get_layer("hidden").name = "other", "fc"

    with pytest.raises(NamingError, match="the model itself: 'flat' became 'other'\n  hidden: 'hidden' became 'fc'"):
        frozen.check(model)


def test_keras_own_fit_save_and_export_look_first(tmp_path: Path) -> None:
    model = functional()
    model.compile("sgd", "mse")
    freeze(model)
    model.fit(np.zeros((4, 6)), np.zeros((4, 3)), verbose=0)
    model.get_layer("hidden").name = "fc"

    for use in (
        lambda: model.fit(np.zeros((4, 6)), np.zeros((4, 3)), verbose=0),
        lambda: model.save(tmp_path / "m.keras"),
        lambda: model.save_weights(tmp_path / "m.weights.h5"),
        lambda: keras.saving.save_model(model, tmp_path / "k.keras"),
        lambda: keras.saving.save_model(model, tmp_path / "k.h5"),
        lambda: model.to_json(),
        lambda: model.export(tmp_path / "m"),
        lambda: nameplate.save(model, tmp_path / "m.keras"),
    ):
        with pytest.raises(NamingError, match="'hidden' became 'fc'"):
            use()
    # Keras opens some before it asks: of HDF5 the head is written.
    assert not [path for path in tmp_path.iterdir() if path.stat().st_size > (800 if path.suffix == ".h5" else 0)]


@pytest.mark.parametrize("mode", ["strict", "report", "repair"])
def test_a_model_that_enforce_handed_out_freezes_when_it_is_compiled(mode: str, tmp_path: Path) -> None:
    model = nameplate.enforce(functional(), mode)
    model.get_layer("norm").name = "bn"
    model.compile("sgd", "mse")
    model.get_layer("hidden").name = "fc"

    with pytest.raises(NamingError, match="'hidden' became 'fc'"):
        model.fit(np.zeros((4, 6)), np.zeros((4, 3)), verbose=0)
    with pytest.raises(NamingError, match="'hidden' became 'fc'"):
        model.compile("sgd", "mse")


def test_a_model_that_is_built_after_compile_may_grow_but_not_change() -> None:
    attention = keras.layers.MultiHeadAttention(1, 2, name="attention")
    model = nameplate.enforce(Attending(attention, name="net"))
    model.compile("sgd", "mse")
    data = np.zeros((2, 3, 4), "float32")
    model.fit(data, data, verbose=0)
    assert "attention/query" in nameplate.layers(model)
    attention.name = "other"

    with pytest.raises(NamingError, match="attention: "):
        model.fit(data, data, verbose=0)


class Attending(keras.Model):
    def __init__(self, attention: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.attention = attention

    def call(self, x: Any) -> Any:
        return self.attention(x, x)


def test_a_layer_that_came_or_went_is_told() -> None:
    model = functional()
    frozen = Frozen(model.name, (("image", "image"), ("gone", "gone")))

    with pytest.raises(NamingError, match=r"gone: removed\n  hidden: added"):
        frozen.check(model)


def test_a_frozen_model_still_trains_saves_and_is_renamed_into_a_copy(tmp_path: Path) -> None:
    model = functional()
    model.compile("sgd", "mse")
    freeze(model)
    nameplate.save(model, tmp_path / "m.keras")

    assert "fc" in nameplate.layers(nameplate.rename(model, {"hidden": "fc"}, uncompiled=True))
    assert (tmp_path / "m.keras").is_file()
