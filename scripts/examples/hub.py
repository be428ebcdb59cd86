"""A backbone and a task in the style of KerasHub: subclasses of `keras.Model`, layers as attributes, a configuration.

    python -m scripts.examples.hub runs/hub --epochs 5

The task learns whether a digit is odd, and is saved and loaded. Its backbone then gets a head of ten classes in place
of the first head; only the new one trains.
"""

from __future__ import annotations

import argparse
from typing import Any

import keras

import nameplate
from nameplate.data.digits import read_digits


@keras.saving.register_keras_serializable("examples")
class DigitsBackbone(keras.Model):
    """Images (n, 8, 8, 1) to features (n, width): the rows of an image as a sequence, through blocks of attention."""

    def __init__(self, width: int = 32, heads: int = 4, depth: int = 2, **options: Any) -> None:
        # === Layers ===
        self.rows = keras.layers.Reshape((8, 8), name="rows")
        self.embedding = keras.layers.Dense(width, name="embedding")
        self.attention = [
            keras.layers.MultiHeadAttention(heads, width // heads, name=f"attention_{block}") for block in range(depth)
        ]
        self.norms = [keras.layers.LayerNormalization(name=f"norm_{block}") for block in range(depth)]
        self.pool = keras.layers.GlobalAveragePooling1D(name="pool")

        # === Functional model ===
        image = keras.Input((8, 8, 1), name="image")
        x = self.embedding(self.rows(image))
        for block, (attention, norm) in enumerate(zip(self.attention, self.norms, strict=True)):
            x = norm(keras.layers.Add(name=f"residual_{block}")([x, attention(x, x)]))
        super().__init__(inputs=image, outputs=self.pool(x), **options)

        # === Config ===
        self.width, self.heads, self.depth = width, heads, depth

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this backbone again."""
        own = {"width": self.width, "heads": self.heads, "depth": self.depth}
        return {"name": self.name, "trainable": self.trainable} | own


@keras.saving.register_keras_serializable("examples")
class DigitsClassifier(keras.Model):
    """Images (n, 8, 8, 1) to logits (n, classes): a backbone, dropout and a dense layer."""

    def __init__(self, backbone: DigitsBackbone, classes: int, dropout: float = 0.1, **options: Any) -> None:
        # === Layers ===
        self.backbone = backbone
        self.dropout = keras.layers.Dropout(dropout, seed=1, name="dropout")
        self.logits = keras.layers.Dense(classes, name="logits")

        # === Functional model ===
        image = backbone.input
        super().__init__(inputs=image, outputs=self.logits(self.dropout(backbone(image))), **options)

        # === Config ===
        self.classes, self.rate = classes, dropout

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this task again, its backbone as a configuration."""
        own = {"backbone": keras.saving.serialize_keras_object(self.backbone)}
        own |= {"classes": self.classes, "dropout": self.rate}
        return {"name": self.name, "trainable": self.trainable} | own

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> DigitsClassifier:
        """Return the task of a configuration."""
        backbone = keras.saving.deserialize_keras_object(config["backbone"], custom_objects)
        return cls(**config | {"backbone": backbone})


def train(runs: str, **options: Any) -> tuple[keras.Model, keras.Model]:
    """Return the task and the model of ten classes; options are those of `fit`, e.g. `epochs=5`."""
    keras.utils.set_random_seed(1)
    images, labels = read_digits()
    task = DigitsClassifier(DigitsBackbone(name="backbone"), classes=2, name="parity")
    fit(task, images, labels % 2, run=f"{runs}/parity", **options)
    nameplate.save(task, f"{runs}/parity.keras")

    loaded = nameplate.load(f"{runs}/parity.keras")
    digits = nameplate.attach(loaded, {"digit": 10}, after="backbone", name="digits")
    nameplate.set_trainable(digits, ["backbone"], trainable=False)
    fit(digits, images, labels, run=f"{runs}/digits", **options)
    return task, digits


def fit(model: keras.Model, images: Any, labels: Any, **options: Any) -> None:
    """Train a classifier of logits, the end of the data held out."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    nameplate.fit(model, images, labels, validation_split=0.2, batch_size=64, **options)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("runs", help="directory of both runs, e.g. runs/hub")
    arguments.add_argument("--epochs", type=int, default=5)
    given = arguments.parse_args()
    train(given.runs, epochs=given.epochs, verbose=1)
