"""Arguments of another form than they are to be: each verb says so in words, and nothing is a raw error of Python's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import nameplate as typed
from nameplate.errors import NameplateError

nameplate: Any = typed  # no signature allows what is tried here


def net() -> keras.Model:
    x = keras.Input((6,), name="x")
    return keras.Model(x, layers.Dense(2, name="out")(layers.Dense(6, name="body")(x)), name="net")


def row() -> keras.Model:
    return keras.Sequential([layers.Dense(2, name="a"), layers.Dense(2, name="b")], name="row")


def on_five(verb: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda _: verb(5)


WRONG: dict[str, tuple[Callable[[Any], Any], str]] = {
    "attach hidden": (lambda m: nameplate.attach(m, {"y": 2}, hidden=5), "hidden=5 is not a list of units"),
    "attach dropout": (lambda m: nameplate.attach(m, {"y": 2}, dropout="a"), "dropout='a' is not a rate"),
    "attach activation": (lambda m: nameplate.attach(m, {"y": 2}, hidden=[3], activation="nope"), "no such function"),
    "attach name": (lambda m: nameplate.attach(m, {"y": 2}, name="a/b"), "name='a/b': has '/'"),
    "attach output": (lambda m: nameplate.attach(m, {1: 2}), "the name 1: not a string"),
    "siamese sides": (lambda m: nameplate.siamese(m, sides=("a", "a")), "two different names"),
    "join value": (lambda _: nameplate.join({"a": 1}), "'a' is a int, not a keras.Model"),
    "join key": (lambda m: nameplate.join({1: m}), "the name 1: not a string"),
    "prefixed": (lambda m: nameplate.prefixed(m, 5), "not a string"),
    "replace list": (lambda m: nameplate.replace(m, ["body"]), "layers must be {name: layer}, not a list"),
    "replace key": (lambda m: nameplate.replace(m, {5: layers.ReLU()}), "qualified name of a layer, not 5"),
    "replace block": (
        lambda m: nameplate.replace(m, {("a", "b", "c"): layers.ReLU()}),
        "give two names, (first, last)",
    ),
    "insert at": (
        lambda m: nameplate.insert(m, layers.ReLU(name="r"), after="body", at="x"),
        "at='x' is not the index of a call",
    ),
    "insert output": (lambda m: nameplate.insert(m, layers.ReLU(name="r"), after="body", output="x"), "output='x'"),
    "remove nothing": (lambda m: nameplate.remove(m), "remove needs the name of at least one layer"),
    "remove number": (lambda m: nameplate.remove(m, 5), "qualified name of a layer, not 5"),
    "remove all": (lambda _: nameplate.remove(row(), "a", "b"), "nothing would be left of 'row'"),
    "edit": (lambda m: nameplate.edit(m, ["x"]), "'x' is not an edit"),
    "flatten separator": (lambda m: nameplate.flatten(m, separator=5), "separator=5 is not a string"),
    "extract": (lambda m: nameplate.extract(m, 5), "outputs=5 is not a qualified name"),
    "plan source": (lambda m: nameplate.plan(5, m), "a source is a model, weights by name or a path"),
    "plan rules": (lambda m: nameplate.plan(m, m, 5), "rules are {old: new}"),
    "plan arrays": (lambda m: nameplate.plan({"body/kernel": [1]}, m), "body/kernel: a list"),
    "load_weights arrays": (lambda m: nameplate.load_weights(m, {"body/kernel": [1]}), "body/kernel: a list"),
    "load_weights source": (lambda m: nameplate.load_weights(m, 5), "a source is a path or weights by name"),
    "save path": (lambda m: nameplate.save(m, 5), "a path is needed, not a int"),
    "export unbuilt": (lambda _: nameplate.export(row(), "served"), "'row' is not built"),
    **{
        f"{verb.__name__} model": (on_five(verb), "a keras.Model is needed, not 5")
        for verb in (
            nameplate.layers,
            nameplate.check,
            nameplate.read,
            nameplate.freeze,
            nameplate.flatten,
            nameplate.draw,
        )
    },
}


@pytest.mark.parametrize("case", WRONG)
def test_d4_an_argument_of_another_form_is_refused_in_words(case: str) -> None:
    call, message = WRONG[case]
    with pytest.raises(NameplateError) as refused:
        call(net())
    assert message in str(refused.value)


def test_d4_a_missing_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(NameplateError, match=r"there is no directory .*nowhere"):
        nameplate.save(net(), tmp_path / "nowhere" / "m.keras")


def test_d4_one_name_stands_for_a_list_of_one() -> None:
    model = net()
    weights = {name: value + 1 for name, value in nameplate.read(model).items()}

    assert set(nameplate.load_weights(model, weights, only="body").loaded) == {"body/kernel", "body/bias"}
    assert nameplate.plan(weights, model, keep="out").counts() == {"taken": 2, "dropped": 2, "kept": 2}
    assert [each.name for each in nameplate.extract(model, "out", inputs="body").inputs] == ["body"]
    assert np.array_equal(nameplate.read(model)["body/bias"], weights["body/bias"])
