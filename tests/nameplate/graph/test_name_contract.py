from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import nameplate
from nameplate.naming.policy import NamingError, Policy, Violation
from tests.nameplate.naming_models import KINDS, Net, Scale, functional, nested, subclassed
from trainer.cli.names import read_table


def unnamed() -> keras.Model:
    x = image = keras.Input((4,))
    for _ in range(3):
        x = layers.Dense(4)(x)
    return keras.Model(image, x)


def test_strict_refuses_with_every_violation_in_a_table() -> None:
    with pytest.raises(NamingError) as caught:
        nameplate.enforce(unnamed(), "strict")

    assert len(caught.value.violations) == 5
    assert str(caught.value).splitlines()[0].startswith("5 names of 'functional")
    assert (
        str(caught.value).splitlines()[-1]
        == "Or take these names: nameplate.enforce(model, 'repair') gives a model that has them."
    )


@pytest.mark.parametrize("mode", ["strict", "repair", "report", "off"])
def test_a_sound_model_is_handed_back_as_it_is(mode: str) -> None:
    model = functional()

    assert nameplate.enforce(model, mode) is model


def test_report_hands_the_violations_over_or_logs_them(caplog: pytest.LogCaptureFixture) -> None:
    model, found = unnamed(), list[Violation]()

    assert nameplate.enforce(model, "report", report=found.extend) is model
    assert len(found) == 5
    with caplog.at_level(logging.WARNING):
        assert nameplate.enforce(model, "report") is model
    assert "made up by Keras" in caplog.text


def test_off_looks_at_nothing() -> None:
    model = unnamed()

    assert nameplate.enforce(model, "off") is model
    assert nameplate.check(model, "off") == []


def test_an_unknown_policy_is_answered_with_the_nearest() -> None:
    with pytest.raises(nameplate.NameplateError, match="Did you mean 'repair'"):
        nameplate.enforce(functional(), "repare")


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
def test_check_never_raises_whatever_was_assigned(make: Any) -> None:
    for value in ("", "a/b", "é", 5, None, "x" * 300, "a\n"):
        model = make()
        next(layer for layer in nameplate.layers(model).values() if isinstance(layer, keras.Layer)).name = value

        assert nameplate.check(model, "strict")


def test_what_no_renaming_can_mend_is_still_refused_under_repair() -> None:
    with pytest.raises(NamingError, match="required, and no layer has it"):
        nameplate.enforce(unnamed(), Policy(mode=type(Policy().mode)("repair"), required=["head"]))


def test_repaired_names_are_those_that_check_suggested() -> None:
    model = unnamed()
    suggested = {each.suggestion for each in nameplate.check(model, "strict")}

    repaired = nameplate.enforce(model, "repair")
    assert {repaired.name, *nameplate.layers(repaired)} == suggested


def test_repair_renames_every_kind_that_an_assignment_broke() -> None:
    model = nested()
    data = np.ones((1, 6), "float32")
    expected = model(data)
    nameplate.layer(model, "deep/core/c1").name = "a/b"
    nameplate.layer(model, "backbone").name = "Deep"
    repaired = nameplate.enforce(model, "repair")

    assert nameplate.check(repaired, "strict") == []
    assert {"Deep", "deep_b/core/a_b"} <= set(nameplate.layers(repaired))
    assert np.array_equal(expected, repaired(data))


def test_an_inception_built_three_times_has_the_same_repaired_names() -> None:
    repaired = []
    for _ in range(3):
        model = keras.applications.InceptionV3(weights=None, include_top=False, input_shape=(75, 75, 3))
        repaired.append(nameplate.enforce(model, "repair"))
        assert nameplate.check(repaired[-1], "strict") == []

    assert len({tuple(nameplate.layers(model)) for model in repaired}) == 1
    assert len({tuple(v.path for v in model.variables) for model in repaired}) == 1


def test_repair_works_inside_a_scope(strategy: Any) -> None:
    with strategy.scope():
        repaired = nameplate.enforce(unnamed(), "repair")

    assert len(nameplate.variables(repaired)["dense1/kernel"].value.values) == 2


def test_a_deep_row_of_layers_is_repaired_saved_and_loaded(tmp_path: Path) -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        x = first = keras.Input((1,))
        for _ in range(1050):
            x = layers.Dense(1, use_bias=False)(x)
        model = keras.Model(first, x)
    finally:
        sys.setrecursionlimit(limit)
    repaired = nameplate.enforce(model, "repair")
    nameplate.save(repaired, tmp_path / "deep.keras")

    assert list(nameplate.layers(nameplate.load(tmp_path / "deep.keras")))[-1] == "dense1050"


def sequential_kind() -> keras.Model:
    stack = [keras.Input((6,), name="image"), layers.Dense(5, name="old"), layers.Dense(3, name="logits")]
    return keras.Sequential(stack, name="stack")


def functional_kind() -> keras.Model:
    x = image = keras.Input((6,), name="image")
    return keras.Model(image, layers.Dense(3, name="logits")(Scale(4, name="old")(x)), name="custom")


def subclassed_kind() -> keras.Model:
    return nameplate.rename(subclassed(), {"stem": "old"})


@pytest.mark.parametrize("make", [sequential_kind, functional_kind, subclassed_kind])
@pytest.mark.parametrize(
    "form", ["keras", "weights.h5", "h5", pytest.param("saved_model", marks=pytest.mark.tensorflow), "store"]
)
def test_names_and_weights_survive_every_format(make: Any, form: str, tmp_path: Path) -> None:
    model = nameplate.rename(make(), {"old": "fresh"})
    path = tmp_path / f"m.{form}"
    if form == "h5" and isinstance(model, Net):
        pytest.skip("Keras writes no such file for a class of the user's")
    values = {name: value for name, value in nameplate.read(model).items() if not name.endswith("/state")}
    found = _written(model, form, path)

    assert sorted(shape for name, shape in found if name.startswith("fresh")) == sorted(
        value.shape for name, value in values.items() if name.startswith("fresh")
    )
    assert not [name for name, _ in found if name.startswith("old")]


def _written(model: keras.Model, form: str, path: Path) -> list[tuple[str, tuple[int, ...]]]:
    """Save a model and return (name, shape) of what is there afterwards."""
    if form == "keras":
        nameplate.save(model, path)
        loaded = nameplate.load(path)
        assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True))
        return [(name, value.shape) for name, value in nameplate.read(loaded).items() if not name.endswith("/state")]
    if form == "saved_model":
        model.export(path, verbose=False)
        top = f"{model.name}/"
        kept = tf.saved_model.load(path).variables
        return [(v.name.removeprefix(top), tuple(v.shape)) for v in kept if "seed" not in v.name]
    if form == "store":
        from nameplate import checkpoint as store

        snapshot = store.Snapshot(
            *(1, 0, 0), nameplate.read(model), optimizer={}, state={}, metrics={}, model="{}", config="", about={}
        )
        store.save(path, snapshot)
        kept = store.open(path / "step_00000001").weights
        return [(name, kept[name].shape) for name in kept if not name.endswith("/state")]
    model.save_weights(path) if form == "weights.h5" else model.save(path)
    return [(array.name, array.shape) for array in read_table(str(path)).arrays]
