"""A layer's call, the sizes of its inputs and its logits behave in Keras as dreams need them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from nameplate.engine.private import any_size, logits
from nameplate.interpret.layer_outputs import Enough, capturing
from tests.nameplate.interpret.nets import nested, noise


def test_a_layers_call_is_an_attribute_that_can_be_shadowed() -> None:
    model = nested()
    neck = model.get_layer("neck")
    with capturing({"neck": neck, "inner": model.get_layer("backbone").get_layer("conv1")}, stop=False) as found:
        outputs = model(noise(1, 32, 32, 3))
    assert found.keys() == {"neck", "inner"}
    assert found["neck"].shape == (1, 32, 32, 10)
    assert outputs.shape == (1, 5)
    assert "call" not in vars(neck)


def test_an_operators_call_is_one_too() -> None:
    image = keras.Input((4,), name="image")
    model = keras.Model(image, keras.layers.Dense(2, name="label")(image + 1.0), name="plus")
    operator = next(each for each in model.operations if not isinstance(each, keras.Layer))
    with capturing({"plus": operator}, stop=False) as found:
        model(np.zeros((1, 4), np.float32))
    np.testing.assert_array_equal(found["plus"], np.ones((1, 4)))


def test_the_last_capture_ends_the_call_and_leaves_no_scope_behind() -> None:
    model = nested()
    with capturing({"conv1": model.get_layer("backbone").get_layer("conv1")}, stop=True) as found:
        model(noise(1, 32, 32, 3))
        pytest.fail("the call went on")
    assert found["conv1"].shape == (1, 32, 32, 6)
    fresh = keras.layers.Dense(1, name="fresh")
    fresh.build((None, 2))
    assert fresh.kernel.path == "fresh/kernel"
    assert not issubclass(Enough, Exception)


def test_sizes_of_graphs_are_not_compared_inside() -> None:
    model = nested()
    with pytest.raises(ValueError, match="shape"):
        model(noise(1, 40, 40, 3))
    with any_size([model]):
        assert model(noise(1, 40, 40, 3)).shape == (1, 5)
    with pytest.raises(ValueError, match="shape"):
        model(noise(1, 40, 40, 3))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("apart", [False, True])
def test_a_probability_remembers_its_logit(activation: str, apart: bool) -> None:
    values = keras.Input((3,), name="values")
    dense = keras.layers.Dense(2, activation=None if apart else activation, name="label")
    x = dense(values)
    x = keras.layers.Activation(activation, name="probability")(x) if apart else x
    model = keras.Model(values, x, name="classifier")
    given = noise(4, 3)
    wanted = given @ np.asarray(dense.kernel) + np.asarray(dense.bias)
    traced = tf.function(lambda each: logits(model(each, training=False)))
    np.testing.assert_allclose(traced(tf.constant(given)), wanted, rtol=1e-5, atol=1e-6)
