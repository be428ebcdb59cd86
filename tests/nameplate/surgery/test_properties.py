from __future__ import annotations

import tempfile
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from keras import layers

import nameplate
from nameplate.graph.functional import SurgeryError
from tests.long import FAULTS
from tests.nameplate.graph.test_rename import assert_identical
from tests.nameplate.surgery import graphs

pytestmark = [pytest.mark.long] if FAULTS else []

# `make faults` draws more. A failure is not made smaller: building models that often takes minutes.
FEW = settings(
    max_examples=150 if FAULTS else 12,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def _plain(model: keras.Model, *kinds: type) -> list[str]:
    found = nameplate.layers(model)
    return [name for name, layer in found.items() if isinstance(layer, kinds) and not isinstance(layer, keras.Model)]


def _assert_kept(before: keras.Model, after: keras.Model, *, but: set[str]) -> None:
    old, new = nameplate.read(before), nameplate.read(after)
    for name, value in old.items():
        if name in new and name.rpartition("/")[0] not in but:
            assert value.tobytes() == new[name].tobytes(), name


@FEW
@given(graphs.RECIPES)
def test_replacing_layers_with_ones_like_them_is_the_identity(recipe: graphs.Recipe) -> None:
    model = graphs.build(recipe)
    changed = {
        name: graphs.fresh_copy(nameplate.layers(model)[name]) for name in _plain(model, layers.Dense, layers.ReLU)
    }

    assert_identical(model, nameplate.replace(model, changed, verify=False))


@FEW
@given(graphs.RECIPES, st.data())
def test_remove_undoes_insert(recipe: graphs.Recipe, data: Any) -> None:
    model = graphs.build(recipe)
    where = data.draw(st.sampled_from(_plain(model, layers.Layer)))
    grown = nameplate.insert(model, layers.BatchNormalization(name="grown"), after=where, verify=False)
    at = f"{where.rpartition('/')[0]}/grown".lstrip("/")

    assert_identical(model, nameplate.remove(grown, at, verify=False))


@FEW
@given(graphs.RECIPES, st.data())
def test_an_edit_comes_back_from_a_file_with_all_other_weights(recipe: graphs.Recipe, data: Any) -> None:
    model = graphs.build(recipe)
    name = data.draw(st.sampled_from(_plain(model, layers.Dense)))
    try:
        edited = nameplate.replace(model, {name: layers.Dense(7)}, rebuild=True, report=lambda _: None)
    except SurgeryError as refused:  # a sum cannot take another width on one side, nor a shared layer at one call
        told = str(refused)
        if "takes (None, 4) and (None, 4)" in told or "at another call" in told:
            return
        raise

    assert nameplate.layers(edited)[name].units == 7
    fits = {name for name, value in nameplate.read(model).items() if nameplate.read(edited)[name].shape == value.shape}
    touched = {key.rpartition("/")[0] for key in nameplate.read(model) if key not in fits} | {name}
    _assert_kept(model, edited, but=touched)


@FEW
@given(
    graphs.RECIPES, st.sampled_from(["insert", "remove", "extract", "flatten", "rename", "prefix", "join"]), st.data()
)
def test_every_other_edit_comes_back_from_a_file_the_same(recipe: graphs.Recipe, kind: str, data: Any) -> None:
    model = graphs.build(recipe)
    name = data.draw(st.sampled_from(_plain(model, layers.ReLU, layers.Dropout, layers.Dense)))
    edited = _edited(model, kind, name)
    if edited is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        nameplate.save(edited, f"{folder}/edited.keras")
        loaded = nameplate.load(f"{folder}/edited.keras")

    assert_identical(edited, loaded)
    assert graphs.equal(edited, loaded)


def _edited(model: keras.Model, kind: str, name: str) -> keras.Model | None:
    """Return the model after an edit of this kind at a layer; None for a layer that cannot go or is called twice."""
    edits = {
        "insert": lambda: nameplate.insert(model, layers.BatchNormalization(name="grown"), after=name),
        "remove": lambda: nameplate.remove(model, name),
        "extract": lambda: nameplate.extract(model, name),
        "flatten": lambda: nameplate.flatten(model),
        "rename": lambda: nameplate.rename(model, {name: "renamed"}),
        "prefix": lambda: nameplate.prefixed(model, "one_"),
        "join": lambda: nameplate.join({"one": model, "other": model}),
    }
    try:
        return edits[kind]()
    except SurgeryError as refused:
        told = str(refused)
        if any(part in told for part in ("say which call", "cannot take the shapes after the edit", "leads to")):
            return None
        raise


@FEW
@given(graphs.RECIPES)
def test_a_flattened_model_computes_the_same_with_the_same_weights(recipe: graphs.Recipe) -> None:
    model = graphs.build(recipe)
    flat = nameplate.flatten(model, verify=False)

    assert graphs.equal(model, flat)
    old = {name.replace("/", "."): value for name, value in nameplate.read(model).items()}
    assert {name.replace("/", "."): value.tobytes() for name, value in nameplate.read(flat).items()} == {
        name: value.tobytes() for name, value in old.items()
    }


@FEW
@given(graphs.RECIPES, graphs.RECIPES)
def test_joined_models_come_apart_as_they_were(first: graphs.Recipe, second: graphs.Recipe) -> None:
    one, other = graphs.build(first), graphs.build(second)
    joined = nameplate.join({"one": one, "other": other}, verify=False)

    for name, model in (("one", one), ("other", other)):
        assert_identical(model, nameplate.branch(joined, name, rename="drawn"))
    ends = [f"one/{name}" for name in dict.fromkeys(one.output_names)]
    part = nameplate.extract(joined, ends, inputs=[f"one/{each.name}" for each in one.inputs], verify=False)
    assert graphs.equal(one, part)


@FEW
@given(graphs.RECIPES, st.data())
def test_an_extracted_layer_gives_what_it_gave_inside(recipe: graphs.Recipe, data: Any) -> None:
    model = graphs.build(recipe)
    calls = {name for name in _plain(model, layers.Dense) if "/" not in name and name != "shared"}
    name = data.draw(st.sampled_from(sorted(calls)))
    part = nameplate.extract(model, name, verify=False)
    inside = keras.Model(model.inputs, model.get_layer(name).output)
    values = {each.name: np.random.default_rng(1).normal(size=(2, 4)).astype("float32") for each in model.inputs}

    given_part = [values[each.name] for each in part.inputs]
    assert np.allclose(
        part(given_part[0] if len(given_part) == 1 else given_part),
        inside([values[each.name] for each in model.inputs]),
        atol=1e-6,
    )
