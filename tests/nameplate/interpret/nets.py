"""Small models that dream in tests."""

from __future__ import annotations

import functools

import keras
import numpy as np

from nameplate.data.digits import read_digits
from trainer.models import convnet


def nested(size: int | None = 32) -> keras.Model:
    """Return a classifier of coloured images of one size, or of any, around a backbone with layers of its own."""
    keras.utils.set_random_seed(1)
    patch = keras.Input((None, None, 3), name="patch")
    x = keras.layers.Conv2D(6, 3, padding="same", activation="relu", name="conv1")(patch)
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="conv2")(x)
    backbone = keras.Model(patch, x, name="backbone")
    image = keras.Input((size, size, 3), name="image")
    x = keras.layers.Conv2D(10, 3, padding="same", name="neck")(backbone(image))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, keras.layers.Dense(5, activation="softmax", name="label")(x), name="nested")


@functools.cache
def digits() -> keras.Model:
    """Return the zoo's convnet after a few epochs on the digits that ship with the project."""
    keras.utils.set_random_seed(0)
    model = convnet.build({"image": (8, 8, 1)}, {"label": 10}, width=16)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    images, labels = read_digits()
    model.fit(images, labels, epochs=8, batch_size=64, verbose=0)
    return model


def noise(*shape: int) -> np.ndarray:
    """Return numbers from 0 to 1, float32."""
    return np.random.default_rng(0).random(shape).astype(np.float32)


class Tower(keras.Model):
    """A model that is no graph, with a layer in a list and one that it never calls."""

    def __init__(self) -> None:
        super().__init__(name="tower")
        self.stages = [keras.layers.Conv2D(4, 3, padding="same", name=f"stage{place}") for place in range(2)]
        self.idle = keras.layers.Dense(3, name="idle")
        self.idle.build((None, 4))
        self.head = keras.layers.Dense(3, name="head")

    def call(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """Return the logits."""
        for stage in self.stages:
            images = keras.ops.relu(stage(images))
        return self.head(keras.ops.mean(images, axis=(1, 2)))
