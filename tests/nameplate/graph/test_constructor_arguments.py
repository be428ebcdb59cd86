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
    "attach hidden": (lambda m: nameplate.attach(m, {"y": 2}, hidden=5), "hidden=5: a list of whole numbers is needed"),
    "attach dropout": (lambda m: nameplate.attach(m, {"y": 2}, dropout="a"), "dropout='a': a number is needed"),
    "attach activation": (lambda m: nameplate.attach(m, {"y": 2}, hidden=[3], activation="nope"), "no such function"),
    "attach name": (lambda m: nameplate.attach(m, {"y": 2}, name="a/b"), "name='a/b': has '/'"),
    "attach output": (lambda m: nameplate.attach(m, {1: 2}), "{string: whole number} is needed, not 1: 2"),
    "siamese sides": (lambda m: nameplate.siamese(m, sides=("a", "a")), "two different names"),
    "join value": (lambda _: nameplate.join({"a": 1}), "a dictionary {string: keras.Model} is needed, not 'a': 1"),
    "join key": (lambda m: nameplate.join({1: m}), "{string: keras.Model} is needed, not 1: <"),
    "prefixed": (lambda m: nameplate.prefixed(m, 5), "prefix=5: a string is needed, not an int"),
    "replace list": (lambda m: nameplate.replace(m, ["body"]), "layers must be {name: layer}, not a list"),
    "replace key": (
        lambda m: nameplate.replace(m, {5: layers.ReLU()}),
        "name=5: a string or (string, string)",
    ),
    "replace block": (
        lambda m: nameplate.replace(m, {("a", "b", "c"): layers.ReLU()}),
        "a string or (string, string) is needed, not a tuple of 3",
    ),
    "insert at": (
        lambda m: nameplate.insert(m, layers.ReLU(name="r"), after="body", at="x"),
        "at='x': a whole number, a list of whole numbers or None is needed",
    ),
    "insert output": (lambda m: nameplate.insert(m, layers.ReLU(name="r"), after="body", output="x"), "output='x'"),
    "remove nothing": (lambda m: nameplate.remove(m), "remove needs the name of at least one layer"),
    "remove number": (lambda m: nameplate.remove(m, 5), "layers=(5,): a list of strings is needed, not 5"),
    "remove all": (lambda _: nameplate.remove(row(), "a", "b"), "nothing would be left of 'row'"),
    "edit": (
        lambda m: nameplate.edit(m, ["x"]),
        "nameplate.Inserts or nameplate.Removes is needed, not 'x'",
    ),
    "flatten separator": (lambda m: nameplate.flatten(m, separator=5), "separator=5: a string is needed"),
    "extract": (
        lambda m: nameplate.extract(m, 5),
        "outputs=5: a string, a list of strings or",
    ),
    "plan source": (lambda m: nameplate.plan(5, m), "a source is a model, weights by name or a path"),
    "plan rules": (
        lambda m: nameplate.plan(m, m, 5),
        "rules=5: a dictionary {string: string} or a list",
    ),
    "plan arrays": (lambda m: nameplate.plan({"body/kernel": [1]}, m), "body/kernel: a list"),
    "load_weights arrays": (lambda m: nameplate.load_weights(m, {"body/kernel": [1]}), "body/kernel: a list"),
    "load_weights source": (
        lambda m: nameplate.load_weights(m, 5),
        "source=5: a path or a dictionary",
    ),
    "save path": (lambda m: nameplate.save(m, 5), "path=5: a path is needed, not an int"),
    "export unbuilt": (lambda _: nameplate.export(row(), "served"), "'row' is not built"),
    **{
        f"{verb.__name__} model": (on_five(verb), "model=5: a keras.Model is needed, not an int")
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
