"""What `compile` and `keras.config` say counts for `nameplate.fit` as for `model.fit`, or is reported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import nameplate
from nameplate.data.source import Stream
from nameplate.engine.replica import Step

NUMBERS = np.random.default_rng(5)
X = NUMBERS.normal(size=(20, 4)).astype("float32")
Y = NUMBERS.normal(size=(20, 2)).astype("float32")


@pytest.fixture
def limits() -> Iterator[None]:
    yield
    keras.config.set_max_epochs(None)
    keras.config.set_max_steps_per_epoch(None)


def compiled(strategy: Any, *layers: keras.layers.Layer, **options: Any) -> keras.Model:
    with strategy.scope():
        keras.utils.set_random_seed(0)
        stack = [keras.Input((4,)), *layers, keras.layers.Dense(2, name="head")]
        model = keras.Sequential(stack, name="small")
        model.compile("sgd", "mse", **options)
    return model


def kernel(model: keras.Model) -> np.ndarray:
    return model.get_layer("head").kernel.numpy()


@pytest.mark.filterwarnings("ignore:.*Your input ran out of data")
def test_a19_the_limits_of_keras_config_end_a_training(strategy: Any, limits: None) -> None:
    limited, same = compiled(strategy), compiled(strategy)
    keras.config.set_max_epochs(2)
    keras.config.set_max_steps_per_epoch(3)
    endless = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4).repeat()
    epochs_end = pytest.warns(UserWarning, match=r"max_epochs\(\) ends the training after 2 epochs")
    with epochs_end, pytest.warns(UserWarning, match=r"max_steps_per_epoch\(\) ends every epoch after 3 steps"):
        history = nameplate.fit(limited, X, Y, batch_size=4, epochs=5, shuffle=False, validation_data=endless)
    assert history.epoch == [0, 1]
    assert history.params["epochs"] == 2
    with pytest.warns(UserWarning, match=r"max_steps_per_epoch\(\) ends every epoch after 3 steps"):
        measured = nameplate.evaluate(limited, X, Y, batch_size=4)
    with pytest.warns(UserWarning, match="after 3 steps"):
        assert len(nameplate.predict(limited, X, batch_size=4)) == 12
    keras.config.set_max_epochs(None)
    keras.config.set_max_steps_per_epoch(None)
    nameplate.fit(same, X, Y, batch_size=4, epochs=1, shuffle=False)  # 3 of 5 steps, and the 2 that are left
    np.testing.assert_array_equal(kernel(limited), kernel(same))
    assert measured == nameplate.evaluate(same, X[:12], Y[:12], batch_size=4)


def test_a19_a_limit_that_is_not_reached_changes_nothing(strategy: Any, limits: None) -> None:
    limited, same = compiled(strategy), compiled(strategy)
    nameplate.fit(same, X, Y, batch_size=8)
    keras.config.set_max_epochs(1)
    keras.config.set_max_steps_per_epoch(3)
    nameplate.fit(limited, X, Y, batch_size=8)
    np.testing.assert_array_equal(kernel(limited), kernel(same))


class Hears(keras.callbacks.Callback):
    """Notes the batches that the hooks are called with."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Any] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.heard.append(batch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.heard.append(batch)

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.heard.append(batch)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self.heard.append(batch)


def test_a19_callbacks_hear_every_steps_per_execution_batches(strategy: Any) -> None:
    hears, model = Hears(), compiled(strategy, steps_per_execution=2)
    nameplate.fit(model, X, Y, batch_size=4, shuffle=False, callbacks=[hears], validation_data=(X[:16], Y[:16]))
    assert hears.heard == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3]  # a last call of fewer steps ends as Keras counts it
    same = compiled(strategy)
    nameplate.fit(same, X, Y, batch_size=4, shuffle=False)
    np.testing.assert_array_equal(kernel(model), kernel(same))


def test_a19_jit_compile_is_xla(strategy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def step(model: keras.Model, *, xla: bool, **given: Any) -> Step:
        asked.append(xla)
        return Step(model, **given)  # without XLA, which would take long

    monkeypatch.setattr("nameplate.training.fit.Step", step)
    cases: list[tuple[dict[str, Any], dict[str, Any]]] = [({}, {}), ({"jit_compile": True}, {})]
    for options, arguments in [*cases, ({"jit_compile": True}, {"xla": False})]:
        nameplate.fit(compiled(strategy, **options), X, Y, batch_size=4, **arguments)
    assert asked == [False, True, False]


def test_a19_where_xla_cannot_compile_it_is_said(strategy: Any) -> None:
    model = compiled(strategy, keras.layers.BatchNormalization(name="norm"), jit_compile=True)
    with pytest.warns(UserWarning, match=r"xla: not compiled, batch statistics cross.*sync_batch_norm=False"):
        nameplate.fit(model, X, Y, batch_size=4)


def generated(seed: int | None) -> tf.data.Dataset:
    source = np.random.default_rng(seed)
    signature = (tf.TensorSpec((4, 4), tf.float32), tf.TensorSpec((4, 2), tf.float32))

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        order = source.permutation(20) if seed is None else np.arange(20)
        return ((X[order[at : at + 4]], Y[order[at : at + 4]]) for at in range(0, 20, 4))

    return tf.data.Dataset.from_generator(batches, output_signature=signature)


def test_a16_an_order_that_is_left_to_chance_is_said_at_the_start(strategy: Any, tmp_path: Path) -> None:
    model, whole = compiled(strategy), tf.data.Dataset.from_tensor_slices((X, Y))
    nameplate.fit(model, whole.shuffle(20).batch(4))  # the process has a seed
    tf.random.set_seed(None)
    with pytest.warns(UserWarning, match=r"^data: ShuffleDataset without a seed.*set_random_seed"):
        nameplate.fit(model, whole.shuffle(20).batch(4))
    nameplate.fit(model, whole.shuffle(20, seed=1).batch(4))
    resumed = {"callbacks": keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))}
    nameplate.fit(model, generated(1), **resumed)
    nameplate.fit(model, generated(None))  # nothing goes on: nothing depends on it
    with pytest.warns(UserWarning, match="^data: two passes begin with different examples"):
        nameplate.fit(model, generated(None), **resumed)


def test_a16_a_validation_of_some_steps_in_an_order_left_to_chance_is_said(strategy: Any) -> None:
    model = compiled(strategy)
    tf.random.set_seed(None)
    held_out = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(20).batch(4)
    with pytest.warns(UserWarning, match=r"^validation_data: each validation takes other 2 steps.*without a seed"):
        nameplate.fit(model, X, Y, batch_size=4, validation_data=held_out, validation_steps=2)
    nameplate.fit(compiled(strategy), X, Y, batch_size=4, validation_data=held_out)


def test_a16_examples_that_overtake_each_other_are_said(strategy: Any) -> None:
    whole = tf.data.Dataset.from_tensor_slices((X, Y)).map(
        lambda x, y: (x, y), num_parallel_calls=2, deterministic=False
    )
    with pytest.warns(UserWarning, match="^data: deterministic=False lets examples overtake"):
        nameplate.fit(compiled(strategy), whole.batch(4))


@pytest.mark.parametrize("texts", [np.array([b"a", b"b"]), np.array([[b"a"], [b"b"]])])
def test_a16_two_passes_over_text_are_compared_by_what_it_says(texts: np.ndarray) -> None:
    order = iter([texts, texts, texts, texts[::-1]])
    signature = tf.TensorSpec(texts.shape[1:], tf.string)
    stream = Stream(tf.data.Dataset.from_generator(lambda: iter(next(order)), output_signature=signature))
    assert not stream.differs()
    assert stream.differs()
