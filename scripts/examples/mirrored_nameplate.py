"""Digits on all GPUs with `nameplate.fit`; `mirrored_keras.py` is the same script with `model.fit`.

    python -m scripts.examples.mirrored_nameplate runs/mirrored --epochs 10

Kill it at any step and start it again: weights and History are, bit for bit, those of a training without a kill.
"""

from __future__ import annotations

import argparse
from typing import Any

import keras
import tensorflow as tf

import nameplate
from nameplate.data.digits import read_digits


def build() -> keras.Model:
    """Return a small convnet of images (n, 8, 8, 1) to ten logits."""
    image = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem_conv")(image)
    x = keras.layers.BatchNormalization(momentum=0.9, name="stem_bn")(x)
    x = keras.layers.ReLU(name="stem_relu")(x)
    x = keras.layers.MaxPooling2D(name="stem_pool")(x)
    x = keras.layers.Conv2D(32, 3, padding="same", activation="relu", name="body_conv")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, keras.layers.Dense(10, name="label")(x), name="digits")


def train(run: str, strategy: tf.distribute.Strategy, **options: Any) -> keras.callbacks.History:
    """Train until the validation no longer improves; options are those of `fit`, e.g. `epochs=10`."""
    keras.utils.set_random_seed(1)
    images, labels = read_digits()
    with strategy.scope():
        model = build()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    return nameplate.fit(
        model,
        images[:1500],
        labels[:1500],
        validation_data=(images[1500:], labels[1500:]),
        batch_size=64,
        callbacks=[keras.callbacks.EarlyStopping("val_loss", patience=3, restore_best_weights=True)],
        run=run,
        checkpoint=nameplate.Checkpoint(every_steps=10, monitor="val_accuracy"),
        **options,
    )


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("run", help="directory of the run, e.g. runs/mirrored")
    arguments.add_argument("--epochs", type=int, default=10)
    given = arguments.parse_args()
    train(given.run, tf.distribute.MirroredStrategy(), epochs=given.epochs)
