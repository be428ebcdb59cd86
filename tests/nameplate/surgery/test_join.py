from __future__ import annotations

from typing import Any, cast

import keras
import numpy as np
import pytest
from keras import layers

import nameplate
from nameplate.arguments import ArgumentError
from nameplate.surgery.join import JoiningError
from tests.nameplate.graph.test_rename import assert_identical
from tests.nameplate.naming_models import KINDS, backbone, functional, keyed, nested, sequential, shared, unbuilt
from tests.nameplate.surgery import graphs


def test_a_prefix_stands_before_every_name_at_the_top_and_nothing_else_changes() -> None:
    model = nested()
    left = nameplate.prefixed(model, "left_")

    assert left.name == "left_outer"
    assert all(name.startswith("left_") for name in nameplate.layers(left))
    assert "left_backbone/c1" in nameplate.layers(left)
    assert [v.tobytes() for v in nameplate.read(left).values()] == [v.tobytes() for v in nameplate.read(model).values()]
    with pytest.raises(JoiningError, match="no name can begin with '_'"):
        nameplate.prefixed(model, "_")


def test_models_of_the_same_names_become_one_with_named_branches_and_come_apart_again() -> None:
    one, other = functional(), functional()
    joined = nameplate.join({"left": one, "right": other})

    assert sorted(joined.output) == ["left", "right"]
    assert [each.name for each in joined.inputs] == ["left_image", "right_image"]
    assert np.array_equal(nameplate.read(joined)["right/hidden/kernel"], nameplate.read(other)["hidden/kernel"])
    assert_identical(other, nameplate.branch(joined, "right", rename="flat"))
    assert nameplate.check(joined, "strict") == []


def test_every_kind_of_model_can_be_joined() -> None:
    made = {name: make() for name, make in KINDS.items() if name != "unbuilt"}
    joined = nameplate.join(made)
    read = nameplate.read(joined)

    for key, model in made.items():
        assert all(np.array_equal(read[f"{key}/{name}"], value) for name, value in nameplate.read(model).items())


def test_one_model_twice_is_two_copies_unless_it_is_shared_on_purpose() -> None:
    tower = backbone()
    copies = nameplate.join({"left": tower, "right": tower})
    one = nameplate.join({"left": tower, "right": tower}, shared=True)

    assert len(copies.weights) == 2 * len(tower.weights)
    assert len(one.weights) == len(tower.weights)
    assert sorted(one.output) == ["left", "right"]


def test_copies_train_apart() -> None:
    tower = backbone()
    pair = nameplate.siamese(tower, shared=False)
    pair.compile("sgd", "mse")
    rng = np.random.default_rng(0)
    pair.fit(
        {"left_pixels": rng.normal(size=(8, 6)), "right_pixels": rng.normal(size=(8, 6))}, np.ones((8, 4)), verbose=0
    )
    after = nameplate.read(pair)

    assert not np.array_equal(after["left/c1/kernel"], after["right/c1/kernel"])


@pytest.mark.parametrize(
    ("branches", "options", "message"),
    [
        ({"a": functional, "A": functional}, {}, "'A' and 'a' differ only in case"),
        ({"a/b": functional}, {}, "the name 'a/b': has '/'"),
        ({"a": unbuilt}, {}, "'a' is not built"),
        ({"a": functional, "b": keyed}, {"inputs": "same"}, "'b' takes (None, 6) and (None, 6), 'a' (None, 6)"),
        ({"a": functional}, {"inputs": "mine"}, "inputs='mine' is neither 'own' nor 'same'"),
        ({}, {}, "there are no branches"),
    ],
)
def test_what_cannot_be_joined_is_said_all_at_once(branches: Any, options: Any, message: str) -> None:
    with pytest.raises(JoiningError) as refused:
        nameplate.join({name: make() for name, make in branches.items()}, **options)
    assert message in str(refused.value)


def test_an_ensemble_averages_votes_or_stands_side_by_side() -> None:
    members = {"one": functional(), "two": sequential(), "three": sequential()}
    data = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    answers = np.stack([np.asarray(member(data)) for member in members.values()])
    average, vote, beside = (nameplate.ensemble(members, combine=each) for each in ("average", "vote", "concatenate"))

    assert np.allclose(average(data), answers.mean(0), atol=1e-6)
    counted = np.stack([np.bincount(row, minlength=3) / 3 for row in answers.argmax(-1).T])
    assert np.allclose(vote(data), counted, atol=1e-6)
    assert np.allclose(beside(data), np.concatenate(answers, axis=-1), atol=1e-6)
    with pytest.raises(JoiningError, match="no combine='averag'"):
        nameplate.ensemble(members, combine="averag")


@pytest.mark.parametrize("compare", ["difference", "product", "concatenate", "cosine", None])
def test_a_siamese_pair_is_one_call(compare: str | None) -> None:
    tower = backbone()
    pair = nameplate.siamese(tower, compare=compare)
    one, other = np.random.default_rng(0).normal(size=(2, 3, 6)).astype("float32")
    answer = pair({"left_pixels": one, "right_pixels": other})
    left, right = np.asarray(tower(one)), np.asarray(tower(other))

    assert len(pair.weights) == len(tower.weights)
    if compare == "difference":
        assert np.allclose(answer, left - right, atol=1e-6)
    if compare is None:
        assert np.allclose(answer["right"], right, atol=1e-6)


def test_joining_works_in_a_strategy_scope(strategy: Any) -> None:
    with strategy.scope():
        joined = nameplate.join({"a": functional(), "b": shared()})
    assert all(len(each._value.values) == 2 for each in joined.weights)


# ---- cases ------------------------------------------------------------------------------------------------------


def test_u01_two_stacks_of_one_name_are_told_apart() -> None:
    stacks = [keras.Sequential([keras.Input((4,)), layers.Dense(3, name="dense_a")], name="sequential_1") for _ in "ab"]
    joined = nameplate.join({"first": stacks[0], "second": stacks[1]})

    assert {"first/dense_a", "second/dense_a"} <= set(nameplate.layers(joined))


def test_u02_u04_one_application_used_twice_saves_and_trains() -> None:
    make = keras.applications.MobileNetV3Small
    one, other = (make(weights=None, input_shape=(32, 32, 3), classes=3, minimalistic=True, alpha=0.75) for _ in "ab")
    joined = nameplate.join({"one": one, "other": nameplate.prefixed(other, "second_")})

    assert len(nameplate.read(joined)) == len(nameplate.read(one)) + len(nameplate.read(other))


def test_u06_sharing_and_copying_are_chosen() -> None:
    tower = backbone()

    assert len(nameplate.siamese(tower).weights) == 4
    assert len(nameplate.siamese(tower, shared=False).weights) == 8


def test_u09_u39_a_derived_graph_has_names_of_its_own() -> None:
    flat = nameplate.flatten(nameplate.join({"one": nested(), "other": nested()}))
    names = [name.casefold() for name in nameplate.layers(flat)]

    assert len(names) == len(set(names))
    assert len({v.path for v in flat.variables}) == len(flat.variables)


def test_u36_inner_layers_are_reached_from_the_outer_input() -> None:
    model = nested()
    part = nameplate.extract(model, "deep/core/c1")
    data = np.ones((2, 6), "float32")

    assert np.allclose(part(data), nameplate.layer(model, "deep/core/c1")(data))
    assert "deep/core/c1" in nameplate.layers(part)
    assert graphs.equal(model, nameplate.flatten(model))


def test_u38_a_layer_is_deleted_inserted_and_replaced() -> None:
    model = sequential()
    grown = nameplate.insert(model, layers.LayerNormalization(name="norm"), after="hidden")
    other = nameplate.replace(grown, {"logits": layers.Dense(9)}, report=lambda _: None)

    assert [each.name for each in other.layers] == ["hidden", "norm", "logits"]
    assert other.output_shape == (None, 9)
    assert graphs.equal(model, nameplate.remove(grown, "norm"))


def test_c10_each_output_of_a_branch_has_a_key_of_its_own() -> None:
    steps = keras.Input((4, 3), name="steps")
    states = layers.LSTM(5, return_state=True, name="lstm")(steps)
    lstm = keras.Model(steps, states, name="net")
    for verify in (False, True):
        joined = nameplate.join({"a": lstm, "b": functional()}, verify=verify)
        assert list(joined.output) == ["a_lstm_0", "a_lstm_1", "a_lstm_2", "b"]
    data = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    given = {"a_steps": data, "b_image": np.zeros((2, 6), "float32")}
    found = joined(given)
    for place, expected in enumerate(lstm(data)):
        assert np.allclose(found[f"a_lstm_{place}"], expected, atol=1e-6)


def test_c10_a_dictionary_of_outputs_keeps_what_each_key_means() -> None:
    x = keras.Input((6,), name="x")
    ends = {"z": layers.Dense(2, name="first")(x), "a": {"c": layers.Dense(2, name="second")(x)}}
    model = keras.Model(x, ends, name="net")
    data = np.random.default_rng(0).normal(size=(2, 6)).astype("float32")
    found, expected = nameplate.join({"p": model})(data), model(data)

    assert np.allclose(found["p_z"], expected["z"], atol=1e-6)
    assert np.allclose(found["p_a_c"], expected["a"]["c"], atol=1e-6)


def test_c10_two_branches_do_not_share_a_key() -> None:
    x = keras.Input((6,), name="x")
    several = keras.Model(x, {"b": layers.Dense(2, name="one")(x), "c": layers.Dense(2, name="two")(x)}, name="net")
    with pytest.raises(JoiningError, match="'a' and 'a_b' would both have the output 'a_b'"):
        nameplate.join({"a": several, "a_b": functional()})


@pytest.mark.parametrize("combine", ["average", "vote", "concatenate"])
def test_d4_a_member_may_have_any_name(combine: str) -> None:
    unnamed = keras.Input((6,))
    plain = keras.Model(unnamed, layers.Dense(3, name="logits")(unnamed), name="plain")
    own = {"average": "members_average", "vote": "members_vote", "concatenate": "members_side_by_side"}[combine]
    made = nameplate.ensemble({"input": plain, own: plain}, combine=combine)

    assert {"input", own} <= set(nameplate.layers(made))
    assert np.shape(made(np.zeros((2, 6), "float32")))[0] == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: nameplate.join(cast("Any", [functional(), functional()])),
            "a dictionary {string: keras.Model} is needed, not a list of 2",
        ),
        (
            lambda: nameplate.ensemble({"image": functional(), "b": functional()}),
            "the input 'image' would have the name",
        ),
        (lambda: nameplate.ensemble({"argmax": functional(), "b": functional()}, combine="vote"), "called 'argmax'"),
        (lambda: nameplate.siamese(functional(), sides=("left", "LEFT")), "differ only in case"),
    ],
)
def test_d4_names_that_cannot_be_are_refused_in_words(make: Any, message: str) -> None:
    with pytest.raises((JoiningError, ArgumentError)) as refused:
        make()
    assert message in str(refused.value)
