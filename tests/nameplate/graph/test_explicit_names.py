"""What the caller wrote is not made up by Keras, and what cannot be saved is found before training."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import nameplate
from nameplate.errors import FileFormatError, NameplateError
from nameplate.io.save import SavingError
from nameplate.naming.policy import NamingError, Violation


@keras.saving.register_keras_serializable("given_names")
class Norm(layers.Layer):
    """A layer whose name is its class's word."""

    def call(self, x: Any) -> Any:
        return x


def written() -> keras.Model:
    """Return a model of which each name is one that Keras makes up too, after Keras has done so."""
    for made_up in (Norm(), layers.Dropout(0.1), layers.Flatten(), *(layers.Dense(1) for _ in range(4))):
        assert made_up.name
    x = image = keras.Input((4, 3), name="image")
    x = layers.Flatten(name="flatten")(layers.Dropout(0.1, name="dropout")(Norm(name="norm")(x)))
    return keras.Model(image, layers.Dense(2, name="dense_3")(x), name="net")


def rules(model: keras.Model) -> set[str]:
    return {violation.rule for violation in nameplate.check(model, "strict")}


COPIES: dict[str, Callable[[keras.Model], keras.Model]] = {
    "rename": lambda model: nameplate.rename(model, {"image": "pixels"}),
    "insert": lambda model: nameplate.insert(model, layers.ReLU(name="re_lu"), after="flatten"),
    "replace": lambda model: nameplate.replace(model, {"norm": layers.ReLU(name="re_lu_7")}),
    "join": lambda model: nameplate.join({"a": model, "b": model}),
    "flatten": nameplate.flatten,
    "prefixed": lambda model: nameplate.prefixed(model, "left_"),
    "apply": lambda model: nameplate.apply(nameplate.plan(model, model), model),
}


@pytest.mark.parametrize("verb", [None, *COPIES])
def test_d3_a_name_that_the_caller_wrote_is_kept_by_every_verb(verb: str | None) -> None:
    model = COPIES[verb](written()) if verb else written()

    assert rules(model) == set()
    assert nameplate.enforce(model, "repair") is model


@pytest.mark.parametrize("verb", [None, "rename", "insert", "apply"])
def test_d3_a_name_that_keras_made_up_stays_one_in_every_copy(verb: str | None, tmp_path: Path) -> None:
    x = image = keras.Input((4, 3), name="image")
    x = layers.Flatten(name="flatten")(x)
    model = keras.Model(image, layers.Dense(2)(layers.Dense(2)(x)), name="net")
    copy = COPIES[verb](model) if verb else model
    copy.save(tmp_path / "m.keras")

    for found in (copy, keras.models.clone_model(copy), keras.saving.load_model(tmp_path / "m.keras")):
        assert "automatic" in rules(found)


def test_d3_a_replacement_keeps_the_name_that_it_was_given() -> None:
    edited = nameplate.replace(written(), {"dropout": layers.Dropout(0.2, name="dropout_9"), "norm": layers.ReLU()})

    assert list(nameplate.layers(edited)) == ["image", "norm", "dropout_9", "flatten", "dense_3"]


_LATE = """
import nameplate  # before Keras, so that nothing notes what is made until a verb is called
import keras
x = keras.Input((4,), name="x")
y = keras.layers.Dropout(0.1, name="dropout")(keras.layers.Dense(3)(x))
found = nameplate.check(keras.Model(x, y, name="net"))
assert [each.name for each in found] == ["dense"], found
"""


def test_d3_what_was_made_before_anyone_looked_goes_by_keras_count() -> None:
    ran = subprocess.run([sys.executable, "-c", _LATE], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]


def test_d3_a_refusal_in_python_speaks_of_arguments() -> None:
    x = keras.Input((4,), name="x")
    model = keras.Model(x, layers.Dense(3)(x), name="net")
    with pytest.raises(NamingError, match=r"nameplate\.enforce\(model, 'repair'\)"):
        nameplate.enforce(model, "strict")
    with pytest.raises(NamingError, match="policy='repair'"):
        nameplate.insert(model, layers.ReLU(), before=list(nameplate.layers(model))[-1])


def test_d5_the_models_own_name_is_checked_and_repaired() -> None:
    x = keras.Input((4,), name="x")
    model = keras.Model(x, layers.Dense(3, name="out")(x), name="my model")
    (found,) = nameplate.check(model)

    assert (found.rule, found.suggestion) == ("grammar", "my_model")
    with pytest.raises(NamingError, match=r"the model's own name: has ' '.*e\.g\. my_model"):
        nameplate.enforce(model)
    assert nameplate.enforce(model, "repair").name == "my_model"


class Siamese(keras.Model):
    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.out = layers.Dense(3, name="out")

    def call(self, x: Any) -> Any:
        return self.out(x)


def _functional(**keywords: Any) -> keras.Model:
    x = keras.Input((4,), name="x")
    return keras.Model(x, layers.Dense(3, name="out")(x), **keywords)


def _sequential(**keywords: Any) -> keras.Model:
    return keras.Sequential([layers.Dense(3, name="out")], **keywords)


@pytest.mark.parametrize(
    ("make", "written", "better"),
    [
        (_functional, "functional", "model"),
        (_sequential, "sequential_1", "model"),
        (Siamese, "siamese", "siamese_model"),
    ],
)
def test_a_model_whose_own_name_keras_made_up_is_refused_repaired_or_reported(
    make: Callable[..., keras.Model], written: str, better: str
) -> None:
    model = make()
    reported: list[Violation] = []

    with pytest.raises(NamingError, match=f"the model's own name: made up by Keras; pass name='{better}'"):
        nameplate.enforce(model)
    assert nameplate.enforce(model, "report", report=reported.extend) is model
    assert [(violation.rule, violation.suggestion) for violation in reported] == [("automatic", better)]
    assert {nameplate.enforce(each, "repair").name for each in (model, make())} == {better}
    assert nameplate.check(nameplate.enforce(model, "repair")) == []
    assert nameplate.check(make(name=written)) == []
    assert nameplate.check(model, nameplate.Policy(automatic=True)) == nameplate.check(model, "off") == []


class TakesNoKeywords(layers.Layer):
    """A layer that Keras can write and cannot read."""

    def __init__(self, units: int, name: str | None = None) -> None:
        super().__init__(name=name)
        self.units = units

    def call(self, x: Any) -> Any:
        return x * self.units


class CallsThemOtherwise(layers.Layer):
    def __init__(self, units: int, **kw: Any) -> None:
        super().__init__(**kw)
        self.units = units

    def call(self, x: Any) -> Any:
        return x * self.units


class Unwritten(layers.Layer):
    def __init__(self, function: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function = function

    def call(self, x: Any) -> Any:
        return self.function(x)


def around(layer: layers.Layer) -> keras.Model:
    x = keras.Input((4,), name="x")
    return keras.Model(x, layer(x), name="net")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TakesNoKeywords(2, name="a"), "add **kwargs to TakesNoKeywords.__init__"),
        (lambda: CallsThemOtherwise(2, name="a"), "rename **kw of CallsThemOtherwise.__init__ to **kwargs"),
    ],
)
def test_d5_a_class_that_no_file_gives_back_is_found_by_check(make: Any, message: str, tmp_path: Path) -> None:
    model = around(make())
    (found,) = nameplate.check(model)

    assert found.rule == "carried"
    assert message in found.message
    with pytest.raises(NamingError) as refused:
        nameplate.save(model, tmp_path / "m.keras")
    assert message.split(",")[0] in " ".join(str(refused.value).split())


def test_d5_what_cannot_be_written_is_refused_with_the_line_to_add(tmp_path: Path) -> None:
    with pytest.raises(SavingError) as refused:
        nameplate.save(around(Unwritten(keras.ops.relu, name="a")), tmp_path / "m.keras")

    assert "add to Unwritten: def get_config(self)" in str(refused.value)
    assert "Example" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_d5_an_error_of_keras_is_shown_down_to_its_cause(tmp_path: Path) -> None:
    around(TakesNoKeywords(2, name="a")).save(tmp_path / "m.keras")
    with pytest.raises(FileFormatError) as refused:
        nameplate.load(tmp_path / "m.keras", custom_objects={"TakesNoKeywords": TakesNoKeywords})

    assert "unexpected keyword argument 'trainable'" in str(refused.value)
    assert "custom_objects" not in str(refused.value)
    assert "trust" not in str(refused.value)


def unbuilt() -> keras.Model:
    return keras.Sequential([layers.Dense(2, name="out")], name="row")


@pytest.mark.parametrize(
    "use",
    [
        lambda model, _: nameplate.plan({}, model),
        lambda model, _: nameplate.load_weights(model, {"out/kernel": np.zeros((4, 2), "float32")}),
        lambda model, folder: nameplate.save(model, folder / "m.weights.h5"),
        lambda model, folder: nameplate.save(model, folder / "m.safetensors"),
        lambda model, folder: nameplate.save(model, folder / "m.pt"),
    ],
)
def test_d4_a_model_without_a_shape_is_refused_in_words(use: Any, tmp_path: Path) -> None:
    with pytest.raises(NameplateError, match="'row' is not built and has no weights yet"):
        use(unbuilt(), tmp_path)


def test_d5_a_refused_dtype_names_the_argument_that_casts() -> None:
    model = around(layers.Dense(2, name="out"))
    wide = {name: (value + 1).astype("float64") for name, value in nameplate.read(model).items()}
    for refused in (
        lambda: nameplate.load_weights(model, wide),
        lambda: nameplate.apply(nameplate.plan(wide, model), model),
    ):
        with pytest.raises(NameplateError, match="cast=True") as error:
            refused()
        assert "Not one name is in both" not in str(error.value)
    cast = nameplate.read(nameplate.apply(nameplate.plan(wide, model, cast=True), model))

    assert np.array_equal(cast["out/kernel"], wide["out/kernel"].astype("float32"))


def test_d5_tables_are_no_wider_than_a_screen() -> None:
    x = keras.Input((3,), name="x")
    inner = keras.Model(x, layers.Dense(3, name="a_layer_that_lies_deep" * 2)(x), name="container_of_a_long_name")
    y = keras.Input((3,), name="y")
    model = keras.Model(y, inner(y), name="net")
    source = {name.replace("container", "box"): value for name, value in nameplate.read(model).items()}
    plan = nameplate.plan(source, model)

    assert max(map(len, str(plan).splitlines())) <= 120
    assert all(name in str(plan) for name in [*source, *nameplate.read(model)])
    assert len(str(nameplate.plan(inner, inner)).splitlines()) == 3  # what fits stays a line a row
