from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from nameplate.data import DataError, Field, augmentation
from nameplate.data.config import DigitsConfig
from nameplate.data.images import image_inputs
from nameplate.data.specs import AMOUNTS

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
