"""Generators without end: what says how many steps it takes is never counted for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import nameplate
from nameplate.data.adapters import batches_of
from nameplate.data.source import Stream

MOST = 60  # batches: far more than any of these takes, with what is read ahead

FORM = tf.TensorSpec((None, 3), tf.float32), tf.TensorSpec((None, 1), tf.float32)


def endless() -> tf.data.Dataset:
    """Return a dataset that does not say that it has no end, and fails where one acts as if it had."""

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        numbers = np.random.default_rng(0)
        for _ in range(MOST):
            x = numbers.normal(size=(4, 3)).astype("float32")
            yield x, x[:, :1]
        raise AssertionError("counted for ever")

    return tf.data.Dataset.from_generator(batches, output_signature=FORM)


def compiled(strategy: Any) -> keras.Model:
    with strategy.scope():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="value")], name="model")
        model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


VERBS: dict[str, Callable[[keras.Model], Any]] = {
    "fit": lambda model: nameplate.fit(model, endless(), steps=5),
    "fit by epochs": lambda model: nameplate.fit(model, endless(), epochs=2, steps_per_epoch=3),
    "fit and validate": lambda model: nameplate.fit(
        model, endless(), steps=5, validation_data=endless(), validation_steps=2
    ),
    "evaluate": lambda model: nameplate.evaluate(model, endless(), steps=3),
    "predict": lambda model: nameplate.predict(model, endless(), steps=3),
}


@pytest.mark.parametrize("verb", VERBS)
def test_b6_steps_end_what_has_no_end(strategy: Any, verb: str) -> None:
    model = compiled(strategy)
    found = VERBS[verb](model)
    if verb == "predict":
        assert found.shape == (12, 1)
    trained = {"fit": 5, "fit by epochs": 6, "fit and validate": 5}
    assert int(model.optimizer.iterations.numpy()) == trained.get(verb, 0)


def test_b6_a_run_of_so_many_steps_counts_as_far_as_they_go() -> None:
    """An epoch that is longer is not over when they are; one that is shorter is what it is."""
    single = endless().unbatch()
    assert batches_of(Stream(single), 4, 2, steps=5).steps == 6
    assert batches_of(Stream(endless(), batched=True), 4, 2, steps=5).steps == 6
    assert batches_of(Stream(endless().take(3), batched=True), 4, 2, steps=5).steps == 3
    assert batches_of(Stream(single.take(7)), 4, 2, steps=5).size == 7
