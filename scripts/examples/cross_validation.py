"""Cross validation: a fresh model for each fold, all in one process, each fold a run that resumes.

    python -m scripts.examples.cross_validation runs/folds --folds 5 --epochs 5

Started again after a kill it resumes the fold that was interrupted and reads the finished ones from their runs. Each
fold traces its steps again, because its model is new: one or two seconds a fold.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

import nameplate
from nameplate.data.digits import read_digits
from nameplate.training.report import Report


def build() -> keras.Model:
    """Return a small network of images (n, 8, 8, 1) to ten logits."""
    image = keras.Input((8, 8, 1), name="image")
    flat = keras.layers.Flatten(name="flat")(image)
    hidden = keras.layers.Dense(64, activation="relu", name="hidden")(flat)
    hidden = keras.layers.Dropout(0.2, seed=1, name="dropout")(hidden)
    return keras.Model(image, keras.layers.Dense(10, name="digit")(hidden), name="digits")


def folds(size: int, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the examples to train on and those to validate on; each is validated on in one fold."""
    parts = np.array_split(np.random.default_rng(0).permutation(size), count)
    for number, held_out in enumerate(parts):
        yield np.concatenate(parts[:number] + parts[number + 1 :]), held_out


def cross_validate(runs: str, *, count: int, **options: Any) -> list[Report]:
    """Return the report of each fold; options are those of `fit`, e.g. `epochs=5`."""
    images, labels = read_digits()
    reports = []
    for number, (trained, held_out) in enumerate(folds(len(images), count)):
        keras.utils.set_random_seed(number)
        report = nameplate.train(
            model=build(),
            data=(images[trained], labels[trained]),
            validation_data=(images[held_out], labels[held_out]),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            batch_size=64,
            run=f"{runs}/fold_{number}",
            **options,
        )
        reports.append(report)
    return reports


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("runs", help="directory of the folds' runs, e.g. runs/folds")
    arguments.add_argument("--folds", type=int, default=5)
    arguments.add_argument("--epochs", type=int, default=5)
    given = arguments.parse_args()
    found = [each.values["val_accuracy"] for each in cross_validate(given.runs, count=given.folds, epochs=given.epochs)]
    print(f"val_accuracy {np.mean(found):.4f} ± {np.std(found, ddof=1):.4f} over {len(found)} folds")
