"""What is measured of a layer is what the layer gives, wherever in the tree it is."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import nameplate
from nameplate.interpret.ascent import Ascent
from nameplate.interpret.layer_outputs import Cut
from nameplate.interpret.objectives import (
    Objective,
    ObjectiveError,
    channel,
    class_logit,
    content,
    direction,
    layer,
    neuron,
    style,
)
from nameplate.interpret.settings import Settings
from tests.nameplate.interpret.nets import Tower, nested, noise
from trainer.models import subclassed, two_tower

IMAGES = noise(3, 32, 32, 3)


def value(model: keras.Model, objective: Objective, images: np.ndarray = IMAGES) -> np.ndarray:
    return Ascent(model, objective, Settings()).value(images)


def given(model: keras.Model, name: str, images: np.ndarray = IMAGES) -> np.ndarray:
    """Return what a layer gives, by a model of Keras' own for the layers outside and inside of the backbone."""
    if not name.startswith("backbone/"):
        return np.asarray(keras.Model(model.inputs[0], model.get_layer(name).output)(images))
    inside = model.get_layer("backbone")
    return np.asarray(keras.Model(inside.inputs[0], nameplate.layer(model, name).output)(images))


@pytest.mark.parametrize("name", ["backbone/conv1", "backbone/conv2", "backbone", "neck", "pool"])
def test_a_layer_is_measured_by_its_mean_square(name: str) -> None:
    model = nested()
    output = given(model, name) if name != "backbone" else given(model, "backbone/conv2")
    wanted = np.square(output).reshape(3, -1).mean(axis=1)
    np.testing.assert_allclose(value(model, layer(name)), wanted, rtol=1e-5)


def test_terms_are_scaled_and_added() -> None:
    model = nested()
    wanted = 0.7 * value(model, layer("neck")) - 0.3 * value(model, channel("backbone/conv1", 2))
    np.testing.assert_allclose(
        value(model, 0.7 * layer("neck") - 0.3 * channel("backbone/conv1", 2)), wanted, rtol=1e-5, atol=1e-7
    )


def test_channel_neuron_and_direction_are_parts_of_the_output() -> None:
    model = nested()
    neck = given(model, "neck")
    unit = np.eye(10)[4]
    np.testing.assert_allclose(value(model, channel("neck", 4)), neck[..., 4].mean(axis=(1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        value(model, direction("neck", 3 * unit)), value(model, channel("neck", 4)), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(value(model, neuron("neck", 4, at=(2, 3))), neck[:, 2, 3, 4], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(value(model, neuron("neck", 4)), neck[:, 16, 16, 4], rtol=1e-4, atol=1e-6)


def test_a_class_is_measured_before_its_softmax() -> None:
    model = nested()
    head = model.get_layer("label")
    wanted = given(model, "pool") @ np.asarray(head.kernel) + np.asarray(head.bias)
    np.testing.assert_allclose(value(model, class_logit(2)), wanted[:, 2], rtol=1e-4, atol=1e-6)


def test_each_image_of_a_batch_has_a_number_of_its_own() -> None:
    model = nested()
    apart = [value(model, channel("neck", number))[place] for place, number in enumerate((7, 0, 3))]
    np.testing.assert_allclose(value(model, channel("neck", [7, 0, 3])), apart, rtol=1e-4, atol=1e-6)


def test_content_and_style_are_nearest_at_their_reference() -> None:
    model = nested()
    images = IMAGES * np.reshape([0.2, 1, 0.6], (3, 1, 1, 1)).astype(np.float32)
    for term in (content, style):
        found = value(model, term("backbone/conv2", images[1]), images)
        assert found.argmax() == 1
        assert found[1] == pytest.approx(0, abs=1e-7)
        assert (found[[0, 2]] < -1e-7).all()


def test_style_is_the_same_wherever_things_are() -> None:
    model = nested()
    moved = np.roll(IMAGES[1:2], 8, axis=2)
    objective = style("backbone/conv1", IMAGES[1])
    assert value(model, objective, moved)[0] > value(model, objective)[0] / 4


def test_layers_of_a_subclassed_model_are_found_in_its_call() -> None:
    model = subclassed.build({"image": (8, 8, 1)}, {"label": 10})
    images = noise(2, 8, 8, 1)
    found = value(model, layer("block2/token_dense1"), images)
    assert found.shape == (2,)
    np.testing.assert_allclose(
        value(model, class_logit(3), images), np.asarray(model(images)["label"])[:, 3], rtol=1e-4
    )


def test_only_layers_up_to_the_deepest_one_are_run() -> None:
    model = Tower()
    model(np.zeros((1, 8, 8, 3), np.float32))
    seen: list[int] = []
    head = model.head.call

    def watched(images: keras.KerasTensor) -> keras.KerasTensor:
        seen.append(1)
        return head(images)

    model.head.call = watched
    Cut(model, ["stage1", "stage0"])(tf.zeros([1, 8, 8, 3]))
    assert seen == []
    Cut(model, ["head"])(tf.zeros([1, 8, 8, 3]))
    assert seen == [1]


def test_a_model_is_left_as_it_was() -> None:
    model = nested()
    before = {name: set(vars(each)) for name, each in nameplate.layers(model).items()}
    value(model, layer("backbone/conv1") + class_logit(1))
    with pytest.raises(ObjectiveError):
        value(model, channel("neck", 99))
    assert {name: set(vars(each)) for name, each in nameplate.layers(model).items()} == before
    np.testing.assert_array_equal(np.asarray(model(IMAGES)), np.asarray(model(IMAGES)))


def test_layers_of_a_sequential_model_are_found() -> None:
    layers = [keras.Input((8, 8, 1)), keras.layers.Conv2D(3, 3, name="first"), keras.layers.Conv2D(2, 3, name="second")]
    assert value(keras.Sequential(layers, name="row"), layer("second"), noise(2, 8, 8, 1)).shape == (2,)


# U37, lucid#226: the layer that is dreamt of does not exist in another net.
def test_u37_unknown_layers_are_refused_all_at_once_with_the_nearest() -> None:
    with pytest.raises(ObjectiveError) as caught:
        Ascent(nested(), layer("conv1") + channel("backbone/conv3", 1) + layer("necks"), Settings())
    text = str(caught.value)
    assert "no layer 'conv1' in 'nested'. It is inside: backbone/conv1." in text
    assert "no layer 'backbone/conv3' in 'nested'. Did you mean" in text
    assert "'neck'" in text


REFUSED = {
    "a channel": (channel("neck", 10), "neck has 10 channels, 0 to 9; there is no 10"),
    "a class": (class_logit(5), "there is no 5"),
    "a position": (neuron("neck", 0, at=(40, 0)), r"positions \(32, 32\)"),
    "a direction": (direction("neck", [1.0, 2.0]), "has 10 channels, and the direction 2 numbers"),
    "an output": (class_logit(0, "labels"), "Did you mean 'label'"),
    "an input": (layer("image"), "does not run image"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_a_layer_does_not_have_is_refused(kind: str) -> None:
    objective, message = REFUSED[kind]
    with pytest.raises(ObjectiveError, match=message):
        value(nested(), objective)


def test_a_layer_that_the_model_never_calls_is_refused() -> None:
    model = Tower()
    model(np.zeros((1, 8, 8, 3), np.float32))
    with pytest.raises(ObjectiveError, match="does not run idle"):
        value(model, layer("idle"), noise(1, 8, 8, 3))


def test_one_of_two_inputs_is_dreamt_over_and_the_other_is_given() -> None:
    model = two_tower.build({"left": (8, 8, 1), "right": (8, 8, 1)}, {"same": 2})
    with pytest.raises(ObjectiveError, match="give a value for every other input"):
        Ascent(model, class_logit(1), Settings())
    right = noise(8, 8, 1)
    found = Ascent(model, class_logit(1, "same"), Settings(), inputs={"right": right}).value(noise(2, 8, 8, 1))
    outputs = model({"left": noise(2, 8, 8, 1), "right": np.stack([right, right])})
    np.testing.assert_allclose(
        found, np.asarray(outputs["same"] if isinstance(outputs, dict) else outputs)[:, 1], rtol=1e-4
    )
