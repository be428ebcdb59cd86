"""Digits on all GPUs with `model.fit`; `mirrored_nameplate.py` is the same script with `nameplate.fit`.

    python -m scripts.examples.mirrored_keras runs/keras --epochs 10

Started again after a kill it continues at the start of the epoch, from the backup: the order of the data, the state of
EarlyStopping, the best value of ModelCheckpoint and the History of the epochs before are lost.
"""

from __future__ import annotations

import argparse
from typing import Any

import keras
import tensorflow as tf

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
    return model.fit(
        images[:1500],
        labels[:1500],
        validation_data=(images[1500:], labels[1500:]),
        batch_size=64,
        callbacks=[
            keras.callbacks.ModelCheckpoint(f"{run}/best.keras", monitor="val_accuracy", save_best_only=True),
            keras.callbacks.EarlyStopping("val_loss", patience=3, restore_best_weights=True),
            keras.callbacks.BackupAndRestore(f"{run}/backup"),
            keras.callbacks.TensorBoard(f"{run}/tensorboard", histogram_freq=1),
        ],
        **options,
    )


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("run", help="directory of the run, e.g. runs/keras")
    arguments.add_argument("--epochs", type=int, default=10)
    given = arguments.parse_args()
    train(given.run, tf.distribute.MirroredStrategy(), epochs=given.epochs)
