from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models
from models.freezing import Frozen, freeze
from models.policy import NamingError
from tests.models.naming_models import KINDS, functional, nested


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
def test_names_that_nobody_touched_are_sound(make: Any) -> None:
    model = make()

    freeze(model).check(model)


@pytest.mark.parametrize(
    ("place", "word"), [("deep/core/c1", "x"), ("backbone", "deep"), ("image", 5), ("logits", "a/b")]
)
def test_an_assignment_anywhere_in_the_tree_is_told_from_what_to_what(place: str, word: Any) -> None:
    model = nested()
    frozen = freeze(model)
    layer = models.layer(model, place)
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
        lambda: model.export(tmp_path / "m"),
        lambda: models.save(model, tmp_path / "m.keras"),
    ):
        with pytest.raises(NamingError, match="'hidden' became 'fc'"):
            use()
    assert not list(tmp_path.iterdir())


def test_a_layer_that_came_or_went_is_told() -> None:
    model = functional()
    frozen = Frozen(model.name, (("image", "image"), ("gone", "gone")))

    with pytest.raises(NamingError, match=r"gone: no longer there\n  hidden: not there before"):
        frozen.check(model)


def test_a_frozen_model_still_trains_saves_and_is_renamed_into_a_copy(tmp_path: Path) -> None:
    model = functional()
    model.compile("sgd", "mse")
    freeze(model)
    models.save(model, tmp_path / "m.keras")

    assert "fc" in models.layers(models.rename(model, {"hidden": "fc"}, uncompiled=True))
    assert (tmp_path / "m.keras").is_file()
