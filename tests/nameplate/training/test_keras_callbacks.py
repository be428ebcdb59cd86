"""Keras' own callbacks do under `nameplate.fit` what they do under `model.fit`, and what is averaged at the end too."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import callbacks as its
from keras import optimizers

import nameplate
from nameplate.errors import NotFiniteError

NUMBERS = np.random.default_rng(0)
X = NUMBERS.normal(size=(16, 6)).astype("float32")
Y = NUMBERS.normal(size=(16, 2)).astype("float32")
USUAL: dict[str, Any] = {"batch_size": 8, "shuffle": False, "verbose": 0}


def small(scope: Any, optimizer: keras.Optimizer | None = None) -> keras.Model:
    with scope:
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(4, activation="tanh", name="body"), keras.layers.Dense(2, name="head")]
        model = keras.Sequential([keras.Input((6,)), *layers], name="small")
        model.compile(optimizer or optimizers.SGD(0.1), "mse")
    return model


def averaging(rate: float = 0.1) -> keras.Optimizer:
    return optimizers.SGD(rate, use_ema=True, ema_momentum=0.8)


def assert_same_weights(one: keras.Model, other: keras.Model) -> None:
    for variable, expected in zip(one.variables, other.variables, strict=True):
        # The order of summation in float32.
        np.testing.assert_allclose(variable.numpy(), expected.numpy(), rtol=1e-4, atol=1e-6, err_msg=variable.path)


CALLBACKS: dict[str, Callable[[], list[keras.callbacks.Callback]]] = {
    # The loss grows at this rate, so that the first epoch is the best.
    "early stopping": lambda: [its.EarlyStopping("loss", restore_best_weights=True, patience=1)],
    "swapped averages": lambda: [its.SwapEMAWeights()],
    "swapped at epochs": lambda: [its.SwapEMAWeights(swap_on_epoch=True)],
    "none": list,
}


@pytest.mark.parametrize("kind", CALLBACKS)
def test_a2_averages_become_the_weights_before_callbacks_hear_of_the_end(strategy: Any, kind: str) -> None:
    seen: list[list[np.ndarray]] = []

    class Saves(keras.callbacks.Callback):
        def on_train_end(self, logs: Any = None) -> None:
            seen.append(self.model.get_weights())

    found = []
    for scope, fit in ((nullcontext(), keras.Model.fit), (strategy.scope(), nameplate.fit)):
        with scope:
            optimizer = averaging(2.0 if kind == "early stopping" else 0.1)
        model = small(strategy.scope() if fit is nameplate.fit else nullcontext(), optimizer)
        history = fit(model, X, Y, epochs=4, validation_data=(X, Y), callbacks=[Saves(), *CALLBACKS[kind]()], **USUAL)
        found.append((model, history.history))
    (alone, expected), (mirrored, measured) = found
    assert_same_weights(mirrored, alone)
    for one, other in zip(*seen, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert measured.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(measured[name], expected[name], rtol=1e-4)
    if kind == "early stopping":
        assert len(expected["loss"]) < 4


def test_a2_a_training_without_a_step_leaves_the_weights_alone(strategy: Any) -> None:
    with strategy.scope():
        optimizer = averaging()
    model = small(strategy.scope(), optimizer)
    before = model.get_weights()
    nameplate.fit(model, X, Y, initial_epoch=2, epochs=2, **USUAL)  # Keras would set them to zero
    for value, was in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, was)


class Breaks(keras.callbacks.Callback):
    """Ends a training as a power cut does, after two epochs."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == 2:
            raise InterruptedError


@pytest.mark.parametrize("dataset", [False, True])
def test_a10_a_backup_goes_on_at_its_epoch(strategy: Any, tmp_path: Path, dataset: bool) -> None:
    def data() -> Any:
        return tf.data.Dataset.from_tensor_slices((X, Y)).batch(8) if dataset else (X, Y)

    def model() -> keras.Model:
        with strategy.scope():
            optimizer = optimizers.Adam(0.01)
        return small(strategy.scope(), optimizer)

    arguments: dict[str, Any] = {"epochs": 4} | ({} if dataset else {"batch_size": 8})
    whole, broken = model(), model()
    nameplate.fit(whole, data(), **arguments)
    with pytest.raises(InterruptedError):
        nameplate.fit(broken, data(), callbacks=[its.BackupAndRestore(tmp_path / "backup"), Breaks()], **arguments)
    again = model()
    backup = its.BackupAndRestore(tmp_path / "backup")
    history = nameplate.fit(again, data(), callbacks=[backup], **arguments)
    assert history.epoch == [2, 3]
    assert int(again.optimizer.iterations.numpy()) == 8
    assert_same_weights(again, whole)
    assert nameplate.fit(again, data(), **arguments).epoch == [
        0,
        1,
        2,
        3,
    ]  # a training of its own, where Keras skips two


def spoilt(at: int) -> np.ndarray:
    y = Y.copy()
    y[at] = np.inf
    return y


def test_b5_termination_on_nan_ends_the_training_as_in_keras(strategy: Any, capsys: Any) -> None:
    heard: list[str] = []
    hears = its.LambdaCallback(on_train_end=lambda logs: heard.append(f"end {sorted(logs)}"))
    found = []
    for scope, fit in ((nullcontext(), keras.Model.fit), (strategy.scope(), nameplate.fit)):
        model = small(scope)
        history = fit(model, X, spoilt(12), epochs=3, callbacks=[hears, its.TerminateOnNaN()], **USUAL).history["loss"]
        found.append((len(history), int(model.optimizer.iterations.numpy()), np.isfinite(history[0])))
    assert found == [(1, 2, False)] * 2
    assert heard == ["end ['loss']"] * 2
    assert capsys.readouterr().out.count("Batch 1: Invalid loss, terminating training") == 2


def test_b5_termination_on_nan_raises_where_it_is_asked_to(strategy: Any) -> None:
    heard: list[str] = []
    hears = its.LambdaCallback(on_train_end=lambda logs: heard.append("end"))
    with pytest.raises(RuntimeError, match="NaN or Inf loss encountered at batch 1"):
        nameplate.fit(
            small(strategy.scope()), X, spoilt(12), callbacks=[hears, its.TerminateOnNaN(raise_error=True)], **USUAL
        )
    assert heard == []


def test_nan_goes_on_as_in_keras_and_ends_a_run(strategy: Any, tmp_path: Path) -> None:
    found = []
    for scope, fit in ((nullcontext(), keras.Model.fit), (strategy.scope(), nameplate.fit)):
        model = small(scope)
        history = fit(model, X, spoilt(12), epochs=2, **USUAL).history["loss"]
        found.append((len(history), int(model.optimizer.iterations.numpy()), bool(np.isfinite(history).any())))
    assert found[0] == found[1]
    assert not found[1][2]
    with pytest.raises(NotFiniteError, match="step 2"):
        nameplate.fit(small(strategy.scope()), X, spoilt(12), run=tmp_path / "run", **USUAL)


@pytest.mark.filterwarnings("ignore:Even though the `tf.config")  # TensorFlow, of the pipeline that brings the batches
def test_b5_functions_that_run_eagerly_are_one_devices(strategy: Any) -> None:
    models = [small(strategy.scope()) for _ in range(2)]
    expected = nameplate.fit(models[0], X, Y, **USUAL).history["loss"]
    tf.config.run_functions_eagerly(True)
    try:
        assert nameplate.fit(models[1], X, Y, **USUAL).history["loss"] == pytest.approx(expected, rel=1e-5)
        measured, predicted = nameplate.evaluate(models[1], X, Y), nameplate.predict(models[1], X)
    finally:
        tf.config.run_functions_eagerly(False)
    assert nameplate.evaluate(models[1], X, Y) == pytest.approx(measured, rel=1e-5)
    np.testing.assert_allclose(nameplate.predict(models[1], X), predicted, rtol=1e-5)


def test_b5_several_optimizers_in_one_train_as_on_one_device(strategy: Any) -> None:
    def several() -> keras.Optimizer:
        of_body = averaging()
        rest = optimizers.Adam(0.01, global_clipnorm=0.1)
        return optimizers.MultiOptimizer(optimizers.OptimizerMap(rest, {"small/body.*": of_body}))

    alone = small(nullcontext(), several())
    with strategy.scope():
        optimizer = several()
    mirrored = small(strategy.scope(), optimizer)
    expected = alone.fit(X, Y, epochs=3, **USUAL).history["loss"]
    measured = nameplate.fit(mirrored, X, Y, epochs=3, **USUAL).history["loss"]
    np.testing.assert_allclose(measured, expected, rtol=1e-5)
    assert_same_weights(mirrored, alone)
