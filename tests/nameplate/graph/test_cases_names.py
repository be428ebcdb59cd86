"""Real users' cases about names, one test each; the threads are public."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import nameplate
from nameplate.graph.clone import RebuildError
from nameplate.graph.keras_private import automatic_counts
from nameplate.graph.name_contract import freeze
from nameplate.naming.policy import NamingError
from tests.nameplate.naming_models import backbone, functional, shared


def small(make: Any) -> keras.Model:
    return make(weights=None, include_top=False, input_shape=(32, 32, 3), minimalistic=True)


def test_u01_two_containers_of_one_name_are_told_and_repaired() -> None:
    """keras#12187: two Sequentials, both `sequential`."""
    automatic_counts().pop("sequential", None)

    class Pair(keras.Model):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.one = keras.Sequential([layers.Dense(2, name="fc")])
            automatic_counts().pop("sequential")  # as in another session: Keras makes up the same name again
            self.two = keras.Sequential([layers.Dense(2, name="fc")])

        def call(self, x: Any) -> Any:
            return self.two(self.one(x))

    model = Pair(name="pair")
    model(np.zeros((1, 2)))
    found = nameplate.check(model, "strict")
    repaired = nameplate.enforce(model, "repair")

    assert {each.rule for each in found} == {"automatic", "duplicate"}
    assert list(nameplate.layers(repaired)) == ["sequential1", "sequential1/fc", "sequential2", "sequential2/fc"]


def test_u02_one_architecture_twice_in_one_model() -> None:
    """keras#5540: `resnet50` used twice."""
    x = keras.Input((6,), name="image")
    left, right = backbone("resnet50"), nameplate.rename(backbone("resnet50"), {"resnet50": "resnet50_right"})
    model = keras.Model(x, layers.Add(name="sum")([left(x), right(x)]), name="m")
    before = nameplate.read(model)
    model.compile("sgd", "mse")
    model.fit(np.ones((8, 6)), np.ones((8, 4)), verbose=0)
    after = nameplate.read(model)

    assert {"resnet50/c1/kernel", "resnet50_right/c1/kernel"} <= set(before)
    assert all(not np.array_equal(before[name], after[name]) for name in before if name.endswith("kernel"))


def test_u04_two_mobile_nets_in_one_model_are_saved_and_come_back(tmp_path: Path) -> None:
    """keras#19689: two MobileNetV3; the `_name` trick breaks saving."""
    x = keras.Input((32, 32, 3), name="image")
    towers = [
        nameplate.rename(
            nameplate.enforce(small(keras.applications.MobileNetV3Small), "repair"), {"MobileNetV3Small": side}
        )
        for side in ("left", "right")
    ]
    model = keras.Model(x, layers.Concatenate(name="both")([tower(x) for tower in towers]), name="pair")
    nameplate.enforce(model, "strict")
    nameplate.save(model, tmp_path / "m.keras")
    loaded = nameplate.load(tmp_path / "m.keras")
    before, after = nameplate.read(model), nameplate.read(loaded)

    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert {"left", "right"} <= set(nameplate.layers(loaded))


def test_u05_an_architecture_without_a_name_argument_is_renamed_afterwards() -> None:
    """keras#16039."""
    model = small(keras.applications.MobileNetV3Small)
    fresh = nameplate.rename(nameplate.enforce(model, "repair"), {model.name: "encoder"})

    assert fresh.name == "encoder"
    assert [w.tobytes() for w in model.get_weights()] == [w.tobytes() for w in fresh.get_weights()]


def test_u06_sharing_is_one_name_and_copies_are_two() -> None:
    """keras#2651, keras-frcnn#159: siamese nets by calling the builder twice."""
    x = keras.Input((6,), name="x")
    copies = [backbone("left"), backbone("right")]
    twice = keras.Model(x, layers.Add(name="sum")([tower(x) for tower in copies]), name="m")

    assert [name for name in nameplate.variables(shared()) if "c1/kernel" in name] == ["tower/c1/kernel"]
    assert [name for name in nameplate.variables(twice) if "c1/kernel" in name] == ["left/c1/kernel", "right/c1/kernel"]


def test_u08_every_duplicate_is_told_with_its_origin() -> None:
    """autokeras#1945: generated duplicates."""

    class Blocks(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="blocks")
            self.row = [layers.Dense(2, name=f"d{index % 2}") for index in range(5)]

    found = nameplate.check(Blocks(), "strict")

    assert [each.message for each in found] == [
        "used twice: first at 0, again at 2",
        "used twice: first at 1, again at 3",
        "used twice: first at 0, again at 4",
    ]
    assert len({each.suggestion for each in found}) == 3


def test_u09_a_rebuilt_graph_has_every_name_once() -> None:
    """innvestigate#130: a rebuilt graph has `dense_1` twice."""
    x = keras.Input((3,))
    model = keras.Model(x, layers.Dense(3)(layers.Dense(3)(x)))
    copies = [nameplate.enforce(model, "repair") for _ in range(2)]

    assert all(len(set(nameplate.layers(copy))) == 3 for copy in copies)
    assert list(nameplate.layers(copies[0])) == list(nameplate.layers(copies[1]))


def test_u11_a_name_is_changed_by_rename_and_an_assignment_is_caught() -> None:
    """keras#10560, tensorflow#21769: `can't set attribute`; in Keras 3 it is silently half done."""
    model = functional()
    frozen = freeze(model)
    model.get_layer("hidden").name = "fc"

    with pytest.raises(NamingError, match="'hidden' became 'fc'"):
        frozen.check(model)
    assert nameplate.rename(functional(), {"hidden": "fc"}).get_layer("fc").path == "fc"


@pytest.mark.parametrize(
    "form", ["keras", "weights.h5", "h5", pytest.param("saved_model", marks=pytest.mark.tensorflow)]
)
def test_u12_a_new_name_persists_through_every_format(form: str, tmp_path: Path) -> None:
    """keras#6194: the name reverts after load."""
    import tensorflow as tf

    from trainer.cli.names import read_table

    model = nameplate.rename(functional(), {"hidden": "fc"})
    path = tmp_path / f"m.{form}"
    if form == "keras":
        nameplate.save(model, path)
        known = set(nameplate.variables(nameplate.load(path)))
    elif form == "saved_model":
        model.export(path, verbose=False)
        known = {variable.name.removesuffix(":0") for variable in tf.saved_model.load(path).variables}
    else:
        model.save_weights(path) if form == "weights.h5" else model.save(path)
        known = {f"{item.name}/kernel" for item in read_table(str(path)).layers}

    assert "fc/kernel" in known
    assert "hidden/kernel" not in known


def test_u13_a_renamed_input_is_fed_by_its_new_name() -> None:
    """keras#6469: a renamed input gives KeyError."""
    fresh = nameplate.rename(shared(), {"left": "query", "right": "document"})
    data = {"query": np.zeros((4, 6)), "document": np.ones((4, 6))}
    old = shared()
    nameplate.write(old, nameplate.read(fresh))

    assert all(
        np.array_equal(a, b)
        for a, b in zip(fresh.predict(data, verbose=0), old.predict(list(data.values()), verbose=0), strict=True)
    )


@pytest.mark.parametrize("to", [{"left": "z", "right": "a"}, {"left": "right", "right": "left"}])
def test_u15_the_order_of_inputs_never_changes(to: dict[str, str]) -> None:
    """tensorflow#43210: a renamed clone fits in another input order."""
    model = shared()
    fresh = nameplate.rename(model, to)
    data = [np.full((2, 6), value, "float32") for value in (1.0, -2.0)]

    assert [tensor.name for tensor in fresh.inputs] == list(to.values())
    assert all(np.array_equal(a, b) for a, b in zip(model(data), fresh(data), strict=True))


class Dropped(layers.Layer):
    def __init__(self, units: int = 2) -> None:
        super().__init__(name="fixed_name")
        self.units = units

    def call(self, x: Any) -> Any:
        return x


class Unpassed(layers.Layer):
    def __init__(self, units: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def get_config(self) -> dict[str, Any]:
        return {"units": self.units}

    def call(self, x: Any) -> Any:
        return x


@pytest.mark.parametrize(
    ("layer", "line"),
    [
        (lambda: Dropped(), "add to Dropped: def __init__(self, ..., **kwargs): super().__init__(**kwargs)"),
        (lambda: Unpassed(name="mine"), "add to Unpassed.get_config: return {**super().get_config(), ...}"),
    ],
)
def test_u18_a_layer_that_loses_its_name_is_found_with_the_line_to_add(layer: Any, line: str) -> None:
    """keras#18356, keras#11210: custom layers that lose their name in `from_config`."""
    x = keras.Input((2,), name="x")
    model = keras.Model(x, layer()(x), name="m")
    found = nameplate.check(model, "strict")

    assert [each.rule for each in found] == ["carried"]
    assert line in found[0].message
    with pytest.raises((NamingError, RebuildError)):
        nameplate.rename(model, {found[0].name: "other"})


def test_u34_a_class_that_refuses_a_name_is_told_at_check() -> None:
    """einops#216: a layer refuses `name`."""
    x = keras.Input((2,), name="x")

    assert "so that it takes a name" in nameplate.check(keras.Model(x, Dropped()(x), name="m"), "strict")[0].message


def test_u37_a_layer_that_does_not_exist_is_never_replaced_by_another() -> None:
    """lucid#226: the dream layer does not exist in another net."""
    with pytest.raises(nameplate.NameplateError, match="Did you mean 'hidden'"):
        nameplate.layer(functional(), "hiden")
