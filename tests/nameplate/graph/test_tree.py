from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import nameplate
from nameplate.errors import NameplateError
from nameplate.graph.tree import seeds, walk
from nameplate.naming.policy import NamingError
from tests.nameplate.naming_models import KINDS, Net, backbone, functional, nested, shared, subclassed, wrapped


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
def test_every_variable_has_exactly_one_name(make: Any) -> None:
    model = make()

    assert {id(v) for v in nameplate.variables(model).values()} == {id(v) for v in model.variables}
    assert len(nameplate.variables(model)) == len(model.variables)


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
def test_the_same_model_built_twice_has_the_same_names(make: Any) -> None:
    first, second = make(), make()

    assert list(nameplate.layers(first)) == list(nameplate.layers(second))
    assert list(nameplate.variables(first)) == list(nameplate.variables(second))
    assert list(seeds(first)) == list(seeds(second))


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
def test_every_kind_passes_strict_when_its_layers_are_named(make: Any) -> None:
    assert nameplate.check(make(), "strict") == []


def test_containers_stand_before_what_they_contain_without_the_models_own_name() -> None:
    assert list(nameplate.layers(nested())) == [
        "image",
        "backbone",
        "backbone/pixels",
        "backbone/c1",
        "backbone/c2",
        "deep",
        "deep/deep_in",
        "deep/core",
        "deep/core/pixels",
        "deep/core/c1",
        "deep/core/c2",
        "both",
        "logits",
    ]


def test_layers_in_lists_and_dictionaries_are_found() -> None:
    assert list(nameplate.layers(subclassed())) == [
        *["stem", "block0", "block1", "left", "right", "drop"],
        *["body", "body/first", "body/second"],
    ]


def test_what_keras_makes_for_itself_is_named_by_its_place() -> None:
    names = nameplate.layers(wrapped())

    assert {"both_ways/forward_lstm/lstm_cell", "each/dense", "deep/cells/low", "attention/dropout"} <= set(names)


def test_operators_are_named_by_their_place_in_the_graph() -> None:
    x = keras.Input((4,), name="x")
    model = keras.Model(x, (x + x) + (x[:, :4] + keras.ops.relu(x)), name="m")

    assert sorted(nameplate.layers(model)) == ["add", "add_1", "add_2", "get_item", "relu", "x"]


def test_a_shared_layer_has_one_name_and_all_its_places() -> None:
    entries = {entry.name: entry for entry in walk(shared())}
    x = keras.Input((4,), name="x")
    dense = layers.Dense(4, name="d")
    inner = keras.Model(x, dense(x), name="inner")
    twice = {entry.name: entry for entry in walk(keras.Model(x, inner(dense(x)), name="m"))}

    assert "tower/c1" in entries
    assert len(twice["d"].sites) == 2


def test_a_layer_that_refers_to_its_container_ends_the_walk() -> None:
    class Child(layers.Layer):
        pass

    model = Net(name="mixer")
    child = Child(name="child")
    model.child = child
    child.owner = model

    assert "child" in nameplate.layers(model)


@pytest.mark.parametrize(
    ("key", "make"),
    [
        ("norm/moving_mean", functional),
        ("drop/seed_generator/state", functional),
        ("backbone/c1/kernel", nested),
        ("deep/core/c1/kernel", nested),
        ("tower/c1/bias", shared),
        ("attention/query/kernel", wrapped),
        ("attention/dropout/seed_generator/state", wrapped),
        ("gain/factor", KINDS["custom"]),
        ("gain/noise/state", KINDS["custom"]),
        ("gain/inner/kernel", KINDS["custom"]),
    ],
)
def test_variables_and_seeds_stand_under_their_layer(key: str, make: Any) -> None:
    assert key in nameplate.variables(make())


def test_the_metrics_of_a_model_are_no_variables_of_it() -> None:
    model = functional()
    before = list(nameplate.variables(model))
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(np.zeros((4, 6)), np.zeros((4, 3)), verbose=0)

    assert list(nameplate.variables(model)) == before


def test_names_are_the_same_under_a_strategy(strategy: Any) -> None:
    with strategy.scope():
        replicated = wrapped()

    assert list(nameplate.variables(replicated)) == list(nameplate.variables(wrapped()))


def test_one_layer_is_found_by_its_qualified_name() -> None:
    model = nested()

    assert nameplate.layer(model, "deep/core/c1").units == 4


@pytest.mark.parametrize(("word", "hint"), [("backbone/c3", "backbone/c"), ("c1", "inside: backbone/c1, deep/core/c1")])
def test_an_unknown_layer_is_answered_with_the_nearest(word: str, hint: str) -> None:
    with pytest.raises(NameplateError, match=hint):
        nameplate.layer(nested(), word)


def test_every_duplicate_is_told_with_both_its_places() -> None:
    model = Net(name="mixer")
    model.blocks[0].name = model.blocks[1].name = "block"

    with pytest.raises(NamingError, match=r"block .*used 2 times: 1, 2"):
        nameplate.layers(model)


def test_the_input_of_a_sequential_counts_when_it_was_given_a_name() -> None:
    hidden = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="d")])

    assert list(nameplate.layers(KINDS["sequential"]())) == ["image", "hidden", "logits"]
    assert list(nameplate.layers(hidden)) == ["d"]


def test_a_row_of_two_thousand_layers_is_walked() -> None:
    class Row(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.row = [layers.Dense(1, name=f"d{index}") for index in range(2000)]

    assert len(nameplate.layers(Row())) == 2000


def test_a_duplicate_container_is_told_once_without_what_is_inside() -> None:
    image = keras.Input((6,), name="image")
    twins = [backbone("bb"), backbone("other")]
    model = keras.Model(image, [twin(image) for twin in twins], name="m")
    twins[1].name = "bb"

    for use in (nameplate.layers, nameplate.variables):
        with pytest.raises(NamingError) as caught:
            use(model)
        assert str(caught.value).splitlines()[:2] == [
            "1 layer name of 'm' mean more than one layer:",
            "  bb   used 2 times: 1, 2",
        ]
