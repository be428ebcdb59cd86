from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from nameplate.data import DataError, Field, augmentation
from nameplate.data.config import DigitsConfig
from nameplate.data.images import image_inputs
from nameplate.data.specs import AMOUNTS
from nameplate.engine.objects import make
from nameplate.naming.keras_objects import AUGMENTATIONS

IMAGE = {"image": Field((8, 8, 1), "float32")}


def batch() -> np.ndarray:
    return np.random.RandomState(0).rand(16, 8, 8, 1).astype(np.float32)


@pytest.mark.parametrize("name", list(AMOUNTS))
def test_each_changes_images_in_training_and_none_in_evaluation(name: str) -> None:
    layers = augmentation(DigitsConfig(augment=[name]), IMAGE)
    assert [layer.name for layer in layers.layers] == [f"augment_{name}"]
    images = batch()
    changed = layers(images, training=True).numpy()
    assert changed.shape == images.shape
    assert not np.allclose(changed, images)
    assert changed.min() >= 0
    assert changed.max() <= 1
    np.testing.assert_array_equal(layers(images, training=False), images)


def test_the_amount_scales_the_change() -> None:
    images = np.full((16, 8, 8, 1), 0.5, np.float32)
    small, large = (
        augmentation(DigitsConfig(augment=[f"brightness:{most}"]), IMAGE)(images, training=True).numpy()
        for most in (0.01, 0.4)
    )
    assert abs(small - 0.5).max() < 0.0101
    assert abs(large - 0.5).max() > 0.1


def test_the_same_seed_changes_images_alike() -> None:
    config = DigitsConfig(augment=["flip", "shift:0.2"])
    first, same, other = (augmentation(config, IMAGE, seed=seed)(batch(), training=True).numpy() for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


class Inverted(keras.layers.Layer):
    """A layer of a user's, without a seed."""

    def call(self, images: Any, training: bool = False) -> Any:
        return 1.0 - images if training else images


class Halved(keras.layers.Layer):
    def call(self, images: Any) -> Any:
        return images[:, ::2]


def made(key: str, item: Any, offered: Mapping[str, Any]) -> keras.Layer:
    layer = make(AUGMENTATIONS, key, item, trust=[__name__], offered=offered)
    assert isinstance(layer, keras.layers.Layer)
    return layer


def test_layers_of_keras_and_of_ones_own_take_part_under_names_of_their_classes() -> None:
    erase = {"_target_": "RandomErasing", "factor": 1.0}
    items = ["flip", erase, {"_target_": f"{__name__}.Inverted"}, "RandomGrayscale", {**erase, "seed": 3}]
    layers = augmentation(DigitsConfig(augment=items), {"image": Field((8, 8, 3), "float32")}, seed=7, make=made)
    names = ["augment_flip", "augment_random_erasing", "augment_inverted", "augment_random_grayscale"]
    assert [layer.name for layer in layers.layers] == [*names, "augment_random_erasing_2"]
    assert layers.layers[1].value_range == (0, 1)
    assert [layers.layers[place].seed for place in (1, 3, 4)] == [8, 10, 3]
    images = np.random.RandomState(0).rand(16, 8, 8, 3).astype(np.float32)
    changed = layers(images, training=True).numpy()
    assert changed.shape == images.shape
    assert not np.allclose(changed, images)
    np.testing.assert_array_equal(layers(images, training=False), images)


def test_layers_that_change_the_shape_or_train_are_refused_at_once() -> None:
    items = [{"_target_": f"{__name__}.Halved"}, {"_target_": f"{__name__}.Dense"}]
    with pytest.raises(DataError) as error:
        augmentation(DigitsConfig(augment=items), IMAGE, make=made)
    assert r"data.augment[0]: Halved makes images (4, 8, 1) of (8, 8, 1)" in str(error.value)
    assert "data.augment[1]: Dense has weights to train" in str(error.value)


class Dense(keras.layers.Dense):
    def __init__(self) -> None:
        super().__init__(1)


def test_it_runs_in_a_step_on_two_replicas(strategy: Any) -> None:
    with strategy.scope():
        layers = augmentation(DigitsConfig(augment=list(AMOUNTS)), IMAGE)

    @tf.function
    def step(images: tf.Tensor) -> Any:
        return strategy.run(lambda share: layers(share, training=True), args=(images,))

    for share in strategy.experimental_local_results(step(tf.constant(batch()))):
        assert share.shape == (16, 8, 8, 1)


def test_without_a_wish_there_is_nothing_and_without_an_image_it_is_refused() -> None:
    assert augmentation(DigitsConfig(), {}) is None
    with pytest.raises(DataError, match=r"changes images, but no input is one: features \(3,\)"):
        augmentation(DigitsConfig(augment=["flip"]), {"features": Field((3,), "float32")})


def test_inputs_that_are_images_are_found() -> None:
    inputs = {**IMAGE, "vector": Field((8,), "float32"), "colour": Field((None, None, 3), "uint8")}
    assert image_inputs(inputs) == ["image", "colour"]
