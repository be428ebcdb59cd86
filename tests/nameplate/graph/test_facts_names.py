"""One test a fact about names in Keras 3.15: what Keras does there, and what is right here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras.src.backend.common import global_state

import nameplate
from nameplate.graph.clone import clone
from nameplate.graph.keras_private import name_scopes_restored
from nameplate.graph.name_contract import freeze
from nameplate.graph.tree import seeds
from nameplate.naming.policy import NamingError
from tests.nameplate.naming_models import Net, functional, keyed, nested, shared, subclassed


@pytest.mark.parametrize("value", ["a/b", 5, "norm", ""])
def test_n1_an_assignment_of_any_name_at_any_time_is_found(value: Any) -> None:
    model = functional()
    model.compile("sgd", "mse")
    frozen = freeze(model)
    model.get_layer("hidden").name = value  # Keras checks nothing

    with pytest.raises(NamingError, match="hidden: 'hidden' became"):
        frozen.check(model)


@pytest.mark.tensorflow
def test_n2_a_rename_leaves_nothing_half_renamed(tmp_path: Path) -> None:
    assigned, fresh = functional(), nameplate.rename(functional(), {"logits": "scores"})
    assigned.get_layer("logits").name = "scores"

    assert assigned.output_names == ["logits"]  # as Keras leaves it
    assert assigned.get_layer("scores").path == "logits"
    assert fresh.output_names == ["scores"]
    assert fresh.get_layer("scores").path == "scores"
    assert [v.path for v in fresh.get_layer("scores").variables] == ["scores/kernel", "scores/bias"]
    fresh.export(tmp_path / "exported", verbose=False)
    exported = {v.name for v in tf.saved_model.load(tmp_path / "exported").variables}
    assert {"scores/kernel:0", "scores/bias:0"} <= exported


@pytest.mark.parametrize("value", ["norm", "a/b"])
def test_n3_what_keras_could_not_load_is_refused_before_it_is_written(value: str, tmp_path: Path) -> None:
    model = functional()
    model.get_layer("hidden").name = value
    model.save(tmp_path / "keras.keras")  # Keras writes it

    with pytest.raises((ValueError, TypeError, KeyError)):
        keras.saving.load_model(tmp_path / "keras.keras")
    with pytest.raises(NamingError):
        nameplate.save(model, tmp_path / "ours.keras")
    assert not (tmp_path / "ours.keras").exists()


def test_n4_a_renamed_input_is_fed_and_a_renamed_output_is_trained_by_its_new_name() -> None:
    fresh = nameplate.rename(keyed(), {"wide": "broad", "score": "rating"})
    fresh.compile("sgd", loss={"rating": "mse", "label": "mse"}, metrics={"rating": ["mae"]})
    data = {"broad": np.zeros((4, 6)), "deep": np.zeros((4, 6))}
    history = fresh.fit(data, {"rating": np.zeros((4, 1)), "label": np.zeros((4, 3))}, verbose=0)

    assert {"rating_loss", "rating_mae"} <= set(history.history)


def test_n5_a_clone_has_weights_inputs_containers_and_is_no_less_for_a_class() -> None:
    copy = clone(nested(), renamed={})
    model = subclassed()

    assert [layer.name for layer in copy.layers] == [layer.name for layer in nested().layers]
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), clone(model).get_weights(), strict=True))


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["a:0", " ", "é", "a b"])
def test_n6_what_would_fail_in_graph_mode_only_is_refused_and_leaks_no_scope(name: str) -> None:
    model = functional()
    model.get_layer("hidden").name = name
    before = list(global_state.get_global_attribute("name_scope_stack") or [])

    assert [each.rule for each in nameplate.check(model, "strict")] == ["grammar"]
    with name_scopes_restored(), pytest.raises(ValueError, match="scope"):
        tf.function(model)(np.zeros((1, 6), "float32"))
    assert list(global_state.get_global_attribute("name_scope_stack") or []) == before


def test_n7_names_are_unique_over_the_whole_tree() -> None:
    model = Net(name="mixer")
    model.blocks[0].name = "block1"
    paths = [v.path for v in nested().variables]

    assert [each.rule for each in nameplate.check(model, "strict")] == ["duplicate"]
    assert len(set(paths)) < len(paths)  # Keras: two backbones share their variables' paths
    assert len(nameplate.variables(nested())) == len(paths)


def test_n8_repaired_names_depend_on_the_model_alone() -> None:
    def build() -> keras.Model:
        x = image = keras.Input((4,))
        for _ in range(3):
            x = layers.Dense(4)(x)
        return keras.Model(image, x + layers.Dense(4)(x))

    built = [nameplate.enforce(build(), "repair") for _ in range(3)]

    assert len({tuple(nameplate.layers(model)) for model in built}) == 1
    assert len({tuple(op.name for op in model.operations) for model in built}) == 1
    assert list(nameplate.layers(built[0])) == ["input1", "dense1", "dense2", "dense3", "dense4", "add"]


def test_n9_names_that_keras_slots_would_flatten_into_one_stay_two() -> None:
    x = keras.Input((3,), name="x")
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(3, name="b_c")], name="a")
    model = keras.Model(x, layers.Dense(3, name="a_b_c")(inner(x)), name="m")

    assert {"a/b_c/kernel", "a_b_c/kernel"} <= set(nameplate.variables(model))


def test_n10_qualified_names_have_every_container_and_every_seed_its_layer() -> None:
    assert "backbone/c1/kernel" in nameplate.variables(nested())  # Keras: c1/kernel
    assert "stem/kernel" in nameplate.variables(subclassed())  # Keras: mixer/stem/kernel
    assert list(seeds(functional())) == ["drop/seed_generator"]  # Keras: seed_generator_N/seed_generator_state
    assert list(nameplate.variables(shared()))[:2] == ["tower/c1/kernel", "tower/c1/bias"]
