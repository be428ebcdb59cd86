"""Random changes of training images, as Keras layers with names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from trainer.config.augment import augment_steps
from trainer.config.data import DataConfig
from trainer.data.dataset import Field
from trainer.data.errors import refuse

LAYERS: dict[str, Callable[..., Any]] = {
    "flip": lambda _, **given: keras.layers.RandomFlip("horizontal", **given),
    "flip_vertical": lambda _, **given: keras.layers.RandomFlip("vertical", **given),
    "shift": lambda most, **given: keras.layers.RandomTranslation(most, most, fill_mode="constant", **given),
    "rotate": lambda most, **given: keras.layers.RandomRotation(most, fill_mode="constant", **given),
    "zoom": lambda most, **given: keras.layers.RandomZoom(most, fill_mode="constant", **given),
    "brightness": lambda most, **given: keras.layers.RandomBrightness(most, value_range=(0, 1), **given),
    "contrast": lambda most, **given: keras.layers.RandomContrast(most, value_range=(0, 1), **given),
}


def augmentation(config: DataConfig, inputs: Mapping[str, Field], *, seed: int = 0) -> keras.Sequential | None:
    """Return the layers of `data.augment` in one model called `augmentation`, or None without any.

    It takes a batch of images (n, height, width, channels) with values in 0..1 and changes each in its own
    way, when called with `training=True`; it is to be applied to each of `image_inputs`. Its layers are
    called `augment_flip` and so on, and draw from `seed`. Build it inside the strategy's scope.

    Raises:
        DataError: changes are asked for, and no input is an image.
    """
    if not config.augment:
        return None
    if not image_inputs(inputs):
        shapes = ", ".join(f"{name} {field.shape}" for name, field in inputs.items())
        refuse([f"data.augment={list(config.augment)} changes images, and no input is one: {shapes}"])
    steps = augment_steps(config.augment)
    layers = [
        LAYERS[name](amount, seed=seed + place, name=f"augment_{name}") for place, (name, amount) in enumerate(steps)
    ]
    return keras.Sequential(layers, name="augmentation")


def image_inputs(inputs: Mapping[str, Field]) -> list[str]:
    """Return the names of the inputs that are images: (height, width, 1 or 3 or 4 channels)."""
    return [name for name, field in inputs.items() if len(field.shape) == 3 and field.shape[2] in (1, 3, 4)]
