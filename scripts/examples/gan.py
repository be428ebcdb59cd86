"""A GAN in a loop of its own, exactly resumable: kill it at any moment and start it again.

    python -m scripts.examples.gan runs/gan --epochs 5

Two models, two optimizers and a generator of noise; the steps are a `tf.function` written here.
"""

from __future__ import annotations

import argparse
from typing import Any

import keras
import tensorflow as tf

import nameplate
from nameplate.data.digits import read_digits

NOISE = 16


def generator() -> keras.Model:
    """Return noise (n, 16) to images (n, 8, 8, 1)."""
    noise = keras.Input((NOISE,), name="noise")
    hidden = keras.layers.Dense(64, activation="relu", name="hidden")(noise)
    pixels = keras.layers.Dense(64, activation="sigmoid", name="pixels")(hidden)
    return keras.Model(noise, keras.layers.Reshape((8, 8, 1), name="image")(pixels), name="generator")


def critic() -> keras.Model:
    """Return images (n, 8, 8, 1) to the logit that they are real, (n, 1)."""
    image = keras.Input((8, 8, 1), name="image")
    flat = keras.layers.Flatten(name="flat")(image)
    hidden = keras.layers.Dense(64, activation="leaky_relu", name="hidden")(flat)
    hidden = keras.layers.Dropout(0.3, seed=1, name="dropout")(hidden)
    return keras.Model(image, keras.layers.Dense(1, name="logit")(hidden), name="critic")


def train(
    path: str, *, epochs: int, checkpoint: nameplate.Checkpoint | None = None, verbose: int = 1
) -> dict[str, Any]:
    """Train to the end of so many epochs, from wherever the run stands; return its history."""
    keras.utils.set_random_seed(1)
    models = {"generator": generator(), "critic": critic()}
    optimizers = {key: keras.optimizers.Adam(1e-3, beta_1=0.5) for key in models}
    noise = keras.random.SeedGenerator(2)
    entropy = keras.losses.BinaryCrossentropy(from_logits=True)

    @tf.function
    def step(real: tf.Tensor) -> dict[str, tf.Tensor]:
        drawn = keras.random.normal((tf.shape(real)[0], NOISE), seed=noise)
        with tf.GradientTape(persistent=True) as tape:
            made = models["generator"](drawn, training=True)
            logits_real, logits_made = (models["critic"](images, training=True) for images in (real, made))
            losses = {
                "critic": entropy(tf.ones_like(logits_real), logits_real)
                + entropy(tf.zeros_like(logits_made), logits_made),
                "generator": entropy(tf.ones_like(logits_made), logits_made),
            }
        for key, model in models.items():
            variables = model.trainable_variables
            optimizers[key].apply(tape.gradient(losses[key], variables), variables)
        return losses

    images, _ = read_digits()
    with nameplate.Run(
        path,
        models,
        optimizers,
        variables={"noise": noise},
        checkpoint=checkpoint or nameplate.Checkpoint(monitor="generator"),
        verbose=verbose,
    ) as run:
        for real in run.epochs(images, epochs, batch_size=64):
            run.record(**step(real))
    return run.history


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("path", help="directory of the run, e.g. runs/gan")
    arguments.add_argument("--epochs", type=int, default=5)
    given = arguments.parse_args()
    train(given.path, epochs=given.epochs)
