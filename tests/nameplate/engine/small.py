"""A model of one layer."""

from __future__ import annotations

import keras


def small_model(optimizer: keras.Optimizer) -> keras.Model:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="dense_a")], name="small")
    model.compile(optimizer, loss="mse")
    model.optimizer.build(model.trainable_variables)
    return model
