"""`verify`, which is on: an edit whose result does not compute what it should, or does not come back, is refused."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import nameplate
from nameplate.errors import NameplateError
from nameplate.graph.functional import SurgeryError
from nameplate.surgery import edit, rebuild
from tests.nameplate.naming_models import functional


@keras.saving.register_keras_serializable("verifying_tests")
class Forgets(layers.Layer):
    """A layer whose configuration leaves out what it computes with."""

    def __init__(self, factor: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x: Any) -> Any:
        return x * self.factor

    def get_config(self) -> dict[str, Any]:
        return dict(super().get_config())


@keras.saving.register_keras_serializable("verifying_tests")
class Counts(layers.Layer):
    """A layer that computes something else each time it is made."""

    made = 0

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        Counts.made += 1
        self.factor = float(Counts.made)

    def call(self, x: Any) -> Any:
        return x * self.factor


def with_layer(layer: layers.Layer) -> keras.Model:
    """Return a model with this layer on the way to one of its two outputs."""
    image = keras.Input((4,), name="image")
    left = layers.Dense(3, name="left")(layer(image))
    right = layers.Dense(3, name="right")(layers.ReLU(name="act")(image))
    return keras.Model(image, [left, right], name="net")


def test_c1_what_the_configuration_of_a_given_layer_forgets_comes_along_and_the_layer_stays_as_it_is() -> None:
    given = Forgets(3.0)
    edited = nameplate.replace(with_layer(layers.ReLU(name="keep")), {"act": given}, report=lambda _: None)

    assert nameplate.layer(edited, "act").factor == 3.0
    assert not given.built
    assert "get_config" not in vars(given)


def test_a_given_layer_that_is_built_is_run_beside_the_one_that_was_made() -> None:
    given = layers.Dense(4, name="mine")
    given.build((None, 4))
    edited = nameplate.replace(with_layer(layers.ReLU(name="keep")), {"act": given}, report=lambda _: None)
    assert np.array_equal(nameplate.layer(edited, "mine").kernel, given.kernel)

    forgets = Forgets(name="odd")
    forgets(np.zeros((1, 4), "float32"))
    forgets.factor = 3.0
    edited = nameplate.replace(with_layer(layers.ReLU(name="keep")), {"act": forgets}, report=lambda _: None)
    assert nameplate.layer(edited, "odd").factor == 3.0


def test_c1_an_untouched_layer_is_made_again_with_what_its_configuration_forgets() -> None:
    model = with_layer(Forgets(3.0, name="scale"))
    edited = nameplate.replace(model, {"act": layers.LeakyReLU()}, report=lambda _: None)

    assert np.array_equal(model(np.ones((2, 4)))[0], edited(np.ones((2, 4)))[0])


def test_a_layer_that_is_another_each_time_is_caught() -> None:
    with pytest.raises(NameplateError, match="output 'left' has other values after loading"):
        nameplate.remove(with_layer(Counts(name="odd")), "act")


def test_a_weight_that_is_lost_on_the_way_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model, build = functional(), rebuild.build

    def careless(*arguments: Any) -> Any:
        built = build(*arguments)
        kernel = built.model.get_layer("logits").kernel
        kernel.assign(np.zeros(kernel.shape))
        return built

    monkeypatch.setattr(edit, "build", careless)
    image = keras.Input((6,), name="image")
    hidden = layers.Dense(5, name="hidden")(image)
    two = keras.Model(image, [layers.Dense(3, name="logits")(hidden), layers.ReLU(name="act")(hidden)], name="two")
    with pytest.raises(SurgeryError, match="output 'logits' has other values though no edit affects it"):
        nameplate.replace(two, {"act": layers.LeakyReLU()})
    nameplate.replace(model, {"hidden": layers.Dense(5)}, report=lambda _: None)  # every output is downstream


def test_a_result_that_cannot_be_saved_is_refused() -> None:
    class Unknown(layers.Layer):
        """A class that no file can name: it is local and takes what no configuration has."""

        def __init__(self, thing: object, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.thing = thing

        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(NameplateError):
        nameplate.replace(with_layer(layers.ReLU(name="keep")), {"act": Unknown(object())})


def test_what_was_proved_is_in_the_report() -> None:
    told: list[Any] = []
    nameplate.replace(with_layer(layers.ReLU(name="keep")), {"act": layers.LeakyReLU()}, report=told.append)
    assert told[0].lines[-1].detail == "names, weights and 2 outputs after saving and loading; 1 outputs as before"
