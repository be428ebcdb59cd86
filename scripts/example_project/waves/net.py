"""The model of this project."""

from __future__ import annotations

import keras


def build(input_shape: tuple[int, ...], classes: int, width: int = 16) -> keras.Model:
    """Return a convolutional network over signals of shape (samples, 1); every layer is named when it is built."""
    signal = keras.Input(input_shape, name="signal")
    x = keras.layers.Conv1D(width, 9, strides=2, activation="relu", name="coarse")(signal)
    x = keras.layers.Conv1D(2 * width, 5, strides=2, activation="relu", name="fine")(x)
    x = keras.layers.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(signal, keras.layers.Dense(classes, name="shape")(x), name="waves_net")
