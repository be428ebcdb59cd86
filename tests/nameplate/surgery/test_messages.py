"""What surgery says when it cannot do what it was asked: a row a refusal, the words in full where they matter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest
from keras import layers

import nameplate
from nameplate.errors import NameplateError
from nameplate.graph.functional import SurgeryError
from tests.nameplate.naming_models import functional, keyed, nested, shared, subclassed, unbuilt


def two_outputs() -> keras.Model:
    """Return a model with a container that takes and gives two tensors, and one of whose outputs is used inside."""
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    inner = keras.Model([a, b], [layers.Add(name="sum")([a, b]), layers.Subtract(name="gap")([a, b])], name="both")
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    total, gap = inner([left, right])
    y = layers.Dense(4, name="up")(total)
    z = layers.Concatenate(name="mix")([y, gap, total])
    return keras.Model([left, right], layers.Dense(2, name="head")(z), name="double")


def alike() -> keras.Model:
    """Return a model in which two layers were given one name after they were built."""
    model = functional()
    model.get_layer("drop").name = "norm"
    return model


MESSAGES: list[tuple[Callable[[], keras.Model], Callable[[keras.Model], Any], str]] = [
    # which layer
    (alike, lambda m: nameplate.remove(m, "norm"), "'norm' is the name of 2 layers"),
    (
        functional,
        lambda m: nameplate.remove(m, "nrm"),
        "no layer 'nrm' in 'flat', which has 5 layers. Did you mean 'norm'?",
    ),
    (nested, lambda m: nameplate.remove(m, "c1"), "backbone/c1"),
    (subclassed, lambda m: nameplate.extract(m, "stem"), "its code calls its layers"),
    (unbuilt, lambda m: nameplate.extract(m, "hidden"), "it is not built yet; build it first"),
    (
        subclassed,
        lambda m: nameplate.insert(m, layers.ReLU(name="act"), after="stem"),
        "the code of Net calls its layers",
    ),
    # which call
    (shared, lambda m: nameplate.replace(m, {"project": layers.Dense(3)}, at=[0, 7]), "at 7: it is called 3 times"),
    (shared, lambda m: nameplate.extract(m, "project"), "is called 3 times; say which call with at={'project': 0}"),
    (
        shared,
        lambda m: nameplate.extract(m, "tower/c1"),
        "'tower' is called 3 times, so its layers have as many outputs",
    ),
    # replace
    (functional, lambda m: nameplate.replace(m, {"hidden": []}), "cannot put an empty list into a graph"),
    (
        functional,
        lambda m: nameplate.edit(m, [nameplate.Remove("norm"), nameplate.Remove("norm")]),
        "removed twice in one pass",
    ),
    (functional, lambda m: nameplate.replace(m, {("norm", "image"): layers.ReLU()}), "contains no input"),
    (nested, lambda m: nameplate.replace(m, {("backbone/c1", "deep/core/c2"): layers.ReLU()}), "different containers"),
    (
        two_outputs,
        lambda m: nameplate.replace(m, {("up", "mix"): layers.Dense(4)}),
        "it also takes the output of 'both'",
    ),
    (functional, lambda m: nameplate.replace(m, {"image": [keras.Input((6,), name="x")] * 2}), "'image' is an input"),
    # insert
    (
        functional,
        lambda m: nameplate.insert(m, keras.Input((6,), name="x"), after="image"),
        "an input cannot be inserted",
    ),
    (two_outputs, lambda m: nameplate.insert(m, layers.ReLU(name="x"), after="both"), "say which with output=0, 1"),
    (two_outputs, lambda m: nameplate.insert(m, layers.ReLU(name="x"), after="both", output=2), "there is no output=2"),
    (two_outputs, lambda m: nameplate.insert(m, layers.ReLU(name="x"), before="mix"), "takes 3 tensors"),
    (
        functional,
        lambda m: nameplate.insert(m, layers.ReLU(name="x"), after="image", before="norm"),
        "takes nothing from",
    ),
    # remove
    (two_outputs, lambda m: nameplate.remove(m, "mix"), "takes 3 tensors"),
    (two_outputs, lambda m: nameplate.remove(m, "both"), "'both' takes 2 tensors"),
    # shapes
    (
        functional,
        lambda m: nameplate.replace(m, {"hidden": layers.Dense(9)}),
        "Pass rebuild=True, or rebuild=['logits', 'norm']",
    ),
    (
        functional,
        lambda m: nameplate.replace(m, {"hidden": layers.Dense(9)}, rebuild=["norm"]),
        "it would need kernel (9, 3)",
    ),
    (keyed, lambda m: nameplate.replace(m, {"w": layers.Dense(5)}), "join"),
    # cut, flatten, draw
    (functional, lambda m: nameplate.extract(m, []), "extract needs the name of at least one layer"),
    (two_outputs, lambda m: nameplate.extract(m, {"x": "both"}), "has several outputs, and one key cannot name them"),
    (nested, lambda m: nameplate.extract(m, "logits", inputs=["backbone/c1"]), "all names must be in one container"),
    (functional, lambda m: nameplate.extract(m, "logits", inputs=["hiden"]), "Did you mean 'hidden'?"),
    (subclassed, lambda m: nameplate.flatten(m), "has no graph whose containers could be flattened"),
    (subclassed, lambda m: nameplate.draw(m), "has no graph to draw"),
    (nested, lambda m: nameplate.draw(m, ["backbone/c1", "deep/core/c1"]), "a drawing shows one container"),
    (functional, lambda m: nameplate.draw(m, style="dott"), "Did you mean 'dot'?"),
    (functional, lambda m: nameplate.draw(m, to="graph.jpg"), "drawings are written as .svg, .png, .pdf"),
]


@pytest.mark.parametrize(("make", "edit", "message"), MESSAGES, ids=[message for _, _, message in MESSAGES])
def test_every_refusal_names_what_was_meant(
    make: Callable[[], keras.Model], edit: Callable[[keras.Model], Any], message: str
) -> None:
    with pytest.raises(NameplateError) as refused:
        edit(make())
    assert message in str(refused.value)


def test_what_cannot_be_done_is_one_error_with_a_line_each() -> None:
    with pytest.raises(SurgeryError) as refused:
        nameplate.edit(
            functional(),
            [
                nameplate.Remove("image"),
                nameplate.Insert(layers.ReLU(name="x"), before="image"),
                nameplate.Replace("hiden", layers.Dense(5)),
            ],
        )
    first, *rest = str(refused.value).splitlines()
    assert first == "nothing was edited:"
    assert set(rest) == {
        "  'image' is an input and cannot be removed; replace it, or extract the part after it",
        "  nothing can be inserted before the input 'image'; insert after it",
        "  no layer 'hiden' in 'flat', which has 5 layers. Did you mean 'hidden'?",
    }
