from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import nameplate
from nameplate.errors import FileFormatError
from nameplate.surgery.conflicts import ClashError, clashes
from tests.nameplate.naming_models import functional
from tests.nameplate.surgery.graphs import equal


def test_a_file_whose_names_are_taken_is_listed_with_both_origins_and_resolved(tmp_path: Path) -> None:
    here = functional()
    nameplate.save(here, tmp_path / "flat.keras")
    with pytest.raises(ClashError) as refused:
        nameplate.load_beside(tmp_path / "flat.keras", {"mine": here})

    told = str(refused.value)
    assert "6 names" in told
    assert f"hidden   here: mine, a Dense; there: {tmp_path / 'flat.keras'}, a Dense" in told
    assert "prefix='NAME_'" in told
    assert nameplate.load_beside(tmp_path / "flat.keras", {"mine": here}, prefix="b_").name == "b_flat"
    renamed = {name: f"{name}2" for name in ["flat", *nameplate.layers(here)]}
    assert "hidden2" in nameplate.layers(nameplate.load_beside(tmp_path / "flat.keras", {"mine": here}, to=renamed))


def test_u08_by_choosing_one_side_keeps_each_name_and_nobody_is_overwritten(tmp_path: Path) -> None:
    here, there = functional(), functional()
    here.compile("sgd", "mse")
    nameplate.save(there, tmp_path / "flat.keras")
    before = list(nameplate.layers(here))
    made = nameplate.load_choosing(tmp_path / "flat.keras", {"old": here}, {"hidden": "theirs", "*": "mine"})

    assert "hidden" in nameplate.layers(made["theirs"])
    assert "hidden_n2" in nameplate.layers(made["old"])
    assert {name for name in nameplate.layers(made["theirs"]) if name.endswith("_n2")} == {
        f"{name}_n2" for name in before if name != "hidden"
    }
    assert made["theirs"].name == "flat_n2"
    assert clashes(made["theirs"], {"old": made["old"]}) == []
    assert list(nameplate.layers(here)) == before
    assert equal(made["theirs"], there)
    assert equal(made["old"], here)
    keras.Model([made["old"].input, made["theirs"].input], [made["old"].output, made["theirs"].output])


@pytest.mark.parametrize(
    ("choose", "part"),
    [
        ({"hidden": "theirs"}, "there: {path}, a Dense; choose 'mine' or 'theirs'"),
        ({"hiden": "mine", "*": "mine"}, "hiden: no clash Did you mean 'hidden'"),
        ({"*": "ours"}, "*: 'ours' is neither 'mine' nor 'theirs'"),
    ],
)
def test_a_choice_that_cannot_be_meant_is_refused(choose: dict[str, str], part: str, tmp_path: Path) -> None:
    nameplate.save(functional(), tmp_path / "flat.keras")
    with pytest.raises(ClashError) as refused:
        nameplate.load_choosing(tmp_path / "flat.keras", {"old": functional()}, choose)
    assert part.format(path=tmp_path / "flat.keras") in str(refused.value).replace(". Did", " Did")


def test_a_clash_but_for_case_is_resolved_by_the_file_s_spelling(tmp_path: Path) -> None:
    nameplate.save(nameplate.rename(functional(), {"hidden": "Hidden"}), tmp_path / "flat.keras")
    made = nameplate.load_choosing(tmp_path / "flat.keras", {"old": functional()}, {"Hidden": "theirs", "*": "mine"})
    assert "Hidden" in nameplate.layers(made["theirs"])
    assert "hidden_n2" in nameplate.layers(made["old"])


def stack() -> keras.Model:
    row = [
        keras.Input((4,), name="x"),
        layers.Dense(4, name="one"),
        layers.Dense(4, name="two"),
        layers.Dense(2, name="o"),
    ]
    return keras.Sequential(row, name="row")


def chain() -> keras.Model:
    x = image = keras.Input((4,), name="x")
    for name in ("one", "two", "three"):
        x = layers.Dense(4, name=name)(x)
    return keras.Model(image, layers.Dense(2, name="o")(x), name="chain")


@pytest.mark.parametrize("make", [stack, chain])
def test_u08_a_file_with_duplicates_inside_is_opened_reported_and_repaired(make: object, tmp_path: Path) -> None:
    model = make()  # type: ignore[operator]
    for layer in model.layers[:-1]:
        if isinstance(layer, layers.Dense):
            layer.name = "same"
    model.save(tmp_path / "bad.keras")
    with pytest.raises(FileFormatError):
        nameplate.load(tmp_path / "bad.keras")
    mended = nameplate.mend(tmp_path / "bad.keras", tmp_path / "good.keras")
    loaded = nameplate.load(tmp_path / "good.keras")

    assert mended[0].old == "same"
    assert [each.new for each in mended] == ["same_n2", "same_n3"][: len(mended)]
    assert len({*nameplate.layers(loaded)}) == len(nameplate.layers(loaded))
    assert equal(loaded, model)
    assert [np.asarray(v).tobytes() for v in loaded.weights] == [np.asarray(v).tobytes() for v in model.weights]


def test_duplicates_that_a_graph_does_not_tell_apart_are_refused(tmp_path: Path) -> None:
    image = keras.Input((4,), name="x")
    one, two = layers.Dense(4, name="one"), layers.Dense(4, name="two")
    model = keras.Model(image, layers.Subtract(name="gap")([one(image), two(image)]), name="pair")
    one.name = two.name = "same"
    model.save(tmp_path / "bad.keras")
    with pytest.raises(FileFormatError, match="several readings of the graph say which of them each call means"):
        nameplate.mend(tmp_path / "bad.keras", tmp_path / "good.keras")
    assert not (tmp_path / "good.keras").exists()


def test_a_file_without_duplicates_is_copied_as_it_is(tmp_path: Path) -> None:
    nameplate.save(chain(), tmp_path / "one.keras")

    assert nameplate.mend(tmp_path / "one.keras", tmp_path / "two.keras") == []
    assert list(nameplate.layers(nameplate.load(tmp_path / "two.keras"))) == ["x", "one", "two", "three", "o"]
