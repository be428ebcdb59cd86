"""Small models and data of a user's own, which a test writes into a module and trusts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

MODULE = '''
import keras


@keras.saving.register_keras_serializable(package="my_nets")
class Spoils(keras.layers.Layer):
    """Passes its input on, nearly; its gradient is infinite where an example's first number is negative."""

    def call(self, x):
        zero = x[:, -1:] - keras.ops.stop_gradient(x[:, -1:])
        return x + 1e-30 * keras.ops.sqrt(keras.ops.where(x[:, :1] < 0, zero, 1.0))


def build(input_shape, classes, names=("body", "label"), width=8, spoils=False, dropout=0.2):
    image = keras.Input(input_shape, name="image")
    flat = keras.layers.Flatten(name="flat")(image)
    x = keras.layers.Dense(width, name=names[0])(flat)
    x = keras.layers.Dropout(dropout, name="drop")(x)
    if spoils:
        x = Spoils(name="spoiler")(keras.layers.Concatenate(name="both")([flat, x]))
    return keras.Model(image, keras.layers.Dense(classes, name=names[1])(x), name="mine")
'''
CUSTOM = ["model=custom", "model._target_=my_nets.build", "trust=[my_nets]"]


def write_nets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `my_nets` importable."""
    (folder / "my_nets.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(folder))


def write_data(path: Path, spoilt: dict[int, float], *, size: int = 40) -> list[str]:
    """Write examples of 6 numbers from 0 to 1 in 3 classes, some with another first number; return the overrides."""
    source = np.random.default_rng(1)
    x = source.random((size, 6)).astype(np.float32)
    for index, value in spoilt.items():
        x[index, 0] = value
    np.savez(path, x=x, y=source.integers(0, 3, size))
    return ["data=arrays", f"data.path={path}", "data.validation=0"]
