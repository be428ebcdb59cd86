"""A copy is what it was made from, whatever its classes' configurations leave out; or it is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import nameplate
from nameplate.graph.clone import RebuildError
from nameplate.graph.functional import SurgeryError
from nameplate.graph.name_contract import enforce
from nameplate.io.save import SavingError
from tests.nameplate.naming_models import example

CLASSES: dict[str, Any] = {}


def known(kind: type) -> type:
    """Keep a class for loading it again."""
    CLASSES[kind.__name__] = kind
    return kind


@known
class Net(keras.Model):
    """Without get_config: Keras fills in the constructor's defaults."""

    def __init__(self, rate: float = 0.1, sizes: tuple[int, ...] = (3,), act: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate, self.sizes, self.act = rate, sizes, act
        self.rows = [layers.Dense(size, name=f"row{place}") for place, size in enumerate(sizes)]

    def call(self, x: Any) -> Any:
        for row in self.rows:
            x = row(x)
        return (self.act or keras.ops.relu)(x) * self.rate


@known
class Hides(keras.Model):
    """Keeps nothing of what it was given."""

    def __init__(self, act: str = "relu", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner = layers.Dense(3, activation=act, name="inner")

    def call(self, x: Any) -> Any:
        return self.inner(x)


@known
class Doubles(keras.Model):
    """Keeps something else under the name of its argument."""

    def __init__(self, units: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units * 2
        self.inner = layers.Dense(units, name="inner")

    def call(self, x: Any) -> Any:
        return self.inner(x) * self.units


@known
class Forgets(layers.Layer):
    """Its get_config leaves an argument out."""

    def __init__(self, scale: float = 1.0, shift: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale, self.shift = scale, shift

    def call(self, x: Any) -> Any:
        return x * self.scale + self.shift

    def compute_output_shape(self, shape: Any) -> Any:
        return shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "shift": self.shift}


@known
class Scaled(keras.Model):
    """A functional subclass with an argument, and a variable, of its own."""

    def __init__(self, *args: Any, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.alpha = alpha
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, x: Any, training: Any = None, mask: Any = None) -> Any:
        return super().call(x, training=training, mask=mask) * self.alpha * self.scale


@known
class Twins(layers.Layer):
    """Two variables of one name and shape."""

    def build(self, shape: Any) -> None:
        self.a = self.add_weight(shape=(4,), name="w", initializer="ones")
        self.b = self.add_weight(shape=(4,), name="w", initializer="zeros", trainable=False)
        self.c = self.add_weight(shape=(4,), name="w", initializer="zeros")

    def call(self, x: Any) -> Any:
        return x * self.a + self.b - 3.0 * self.c


def net() -> keras.Model:
    model = Net(0.5, (4, 2), keras.ops.tanh, name="net")
    model(np.ones((1, 4), "float32"))
    return model


def plain_net() -> keras.Model:
    model = Net(0.5, (4, 2), name="net")
    model(np.ones((1, 4), "float32"))
    return model


def doubles() -> keras.Model:
    model = Doubles(name="doubles")
    model(np.ones((1, 4), "float32"))
    return model


def forgets() -> keras.Model:
    x = image = keras.Input((4,), name="image")
    x = layers.TimeDistributed(Forgets(5.0, 1.0, name="wrapped"), name="each")(x[:, None, :])
    x = Forgets(2.0, 3.0, name="forgets")(layers.Flatten(name="flat")(x))
    return keras.Model(image, layers.Dense(2, name="row0")(x), name="net")


def scaled() -> keras.Model:
    image = keras.Input((4,), name="image")
    model = Scaled(image, layers.Dense(2, name="row0")(image), alpha=3.0, name="scaled")
    model.scale.assign(5.0)
    return model


def twins() -> keras.Model:
    image = keras.Input((4,), name="image")
    model = keras.Model(image, layers.Dense(2, name="row0")(Twins(name="twins")(image)), name="net")
    for place, variable in enumerate(model.get_layer("twins").variables):
        variable.assign(np.full(4, place + 2.0))
    return model


RECOVERED = [net, plain_net, doubles, forgets, scaled, twins]
COPIES: dict[str, Callable[[keras.Model], keras.Model]] = {
    "rename": lambda model: nameplate.rename(model, {next(iter(nameplate.layers(model))): "another"}),
    "prefixed": lambda model: nameplate.prefixed(model, "left_"),
    "enforce": lambda model: enforce(renamed_badly(model), "repair"),
    "apply": lambda model: nameplate.apply(nameplate.plan(model, model), model),
    "join": lambda model: nameplate.branch(nameplate.join({"one": model, "two": model}, verify=False), "two"),
}


def renamed_badly(model: keras.Model) -> keras.Model:
    next(iter(nameplate.layers(model).values())).name = "a b"
    return model


def data(model: keras.Model) -> Any:
    if getattr(model, "inputs", None):
        return example(model)
    return np.random.default_rng(0).normal(size=(2, 4)).astype("float32")


@pytest.mark.parametrize("verb", COPIES)
@pytest.mark.parametrize("make", RECOVERED, ids=[make.__name__ for make in RECOVERED])
def test_c1_a_copy_computes_what_its_original_does_whatever_its_configuration_forgets(make: Any, verb: str) -> None:
    keras.utils.set_random_seed(1)
    model = make()
    before = model(data(model))
    copy = COPIES[verb](model)

    assert type(copy) is type(model)
    assert np.array_equal(before, copy(data(model)))
    assert [variable.shape for variable in copy.variables] == [variable.shape for variable in model.variables]
    assert not any("get_config" in vars(layer) for layer in [model, *nameplate.layers(model).values()])


@pytest.mark.parametrize("make", [plain_net, doubles, forgets, twins])
def test_c1_a_file_has_the_arguments_that_a_configuration_forgets_for_plain_keras_too(
    make: Any, tmp_path: Path
) -> None:
    keras.utils.set_random_seed(1)
    model = make()
    nameplate.save(model, tmp_path / "m.keras")

    for loaded in (
        nameplate.load(tmp_path / "m.keras", custom_objects=CLASSES),
        keras.saving.load_model(tmp_path / "m.keras", custom_objects=CLASSES),
    ):
        assert np.array_equal(model(data(model)), loaded(data(model)))


def hidden() -> keras.Model:
    model = Hides("tanh", name="hides")
    model(np.ones((1, 4), "float32"))
    return model


def test_c1_what_no_copy_could_know_is_refused_with_the_line_to_add(tmp_path: Path) -> None:
    line = "add to Hides: def get_config(self): return {**super().get_config(), 'act': self.act}"
    for verb in ("rename", "prefixed", "enforce", "apply"):
        with pytest.raises(RebuildError) as refused:
            COPIES[verb](hidden())
        assert "activation is 'tanh', 'relu' after rebuilding" in str(refused.value)
        assert line in str(refused.value)
    with pytest.raises(SavingError) as unsaved:
        nameplate.save(hidden(), tmp_path / "m.keras")
    assert "inner: activation is 'tanh', 'relu' after loading" in str(unsaved.value)
    assert line in str(unsaved.value)
    assert not list(tmp_path.iterdir())


def test_c1_a_function_that_no_file_can_hold_is_refused_when_saved(tmp_path: Path) -> None:
    with pytest.raises(SavingError, match=r"add to Net: def get_config"):
        nameplate.save(net(), tmp_path / "m.keras")


def test_c1_an_attribute_that_was_set_later_comes_along_and_is_not_saved_as_something_else(tmp_path: Path) -> None:
    model = doubles()
    model.units = 7
    before = model(data(model))

    assert np.array_equal(before, nameplate.prefixed(model, "left_")(data(model)))
    with pytest.raises(SavingError, match="units is 7, 4 after loading"):
        nameplate.save(model, tmp_path / "m.keras")


def test_c4_surgery_keeps_the_variables_and_arguments_of_a_functional_subclass() -> None:
    model = scaled()
    edited = nameplate.insert(model, layers.ReLU(name="act"), after="row0", verify=False, report=lambda _: None)

    assert type(edited) is Scaled
    assert edited.alpha == 3.0
    assert edited.scale.numpy() == 5.0
    assert np.allclose(keras.ops.relu(model(data(model)) / 15.0) * 15.0, edited(data(model)))


def test_c4_a_part_of_a_functional_subclass_is_without_what_its_class_adds() -> None:
    model = scaled()
    part = nameplate.extract(model, "row0")

    assert type(part) is not Scaled
    assert np.allclose(part(data(model)) * 15.0, model(data(model)))


def test_c4_what_a_class_adds_to_its_graph_is_not_lost_in_a_container_that_is_opened() -> None:
    image = keras.Input((4,), name="image")
    model = keras.Model(image, layers.ReLU(name="act")(scaled()(image)), name="net")

    with pytest.raises(SurgeryError, match=r"'scaled' cannot be flattened: Scaled\.call does more"):
        nameplate.flatten(model, verify=False)
    with pytest.raises(SurgeryError, match="nothing inside 'scaled' can be extracted"):
        nameplate.extract(model, "scaled/row0")


def test_c3_two_variables_of_one_name_and_shape_keep_their_own_values() -> None:
    model = twins()
    for copy in (nameplate.rename(model, {"twins": "both"}), nameplate.remove(model, "row0", report=lambda _: None)):
        values = [variable.numpy()[0] for variable in copy.layers[1].variables]
        assert values == [2.0, 3.0, 4.0]


class Switches(keras.Model):
    """Keeps a method of its own for its argument, and counts its calls."""

    def __init__(self, mode: str = "plus", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner = layers.Dense(3, name="inner")
        self.calls = 0
        self.change = self.plus if mode == "plus" else self.minus

    def plus(self, x: Any) -> Any:
        return x

    def minus(self, x: Any) -> Any:
        return -x

    def call(self, x: Any) -> Any:
        self.calls += 1
        return self.change(self.inner(x))


def test_c1_what_only_the_outputs_show_is_refused_with_the_line_to_add() -> None:
    model = Switches("minus", name="switches")
    model(np.ones((1, 4), "float32"))
    with pytest.raises(RebuildError) as refused:
        nameplate.prefixed(model, "left_")

    assert "output '0' has other values after rebuilding" in str(refused.value)
    assert "add to Switches: def get_config(self): return {**super().get_config(), 'mode': self.mode}" in str(
        refused.value
    )


def test_c1_the_original_is_run_and_stays_as_it_was() -> None:
    model = Switches(name="switches")
    model(np.ones((1, 4), "float32"))
    calls = model.calls

    assert nameplate.prefixed(model, "left_").calls == calls
    assert model.calls == calls
