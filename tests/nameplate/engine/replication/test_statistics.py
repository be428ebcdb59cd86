"""What no gradient moves: the same on all replicas when it is synchronised, and one value of it when it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import nameplate
from tests.trainer.running import content, train

X = np.random.default_rng(0).normal(size=(13, 4)).astype("float32")
Y = np.ones((13, 2), "float32")


def fitted(strategy: Any, **options: Any) -> keras.Model:
    with strategy.scope():
        norms = [layers.BatchNormalization(name=f"norm_{each}") for each in "ab"]
        stack = [norms[0], layers.Dense(3, name="hidden"), layers.Dropout(0.5, seed=1, name="drop"), norms[1]]
        model = keras.Sequential([keras.Input((4,)), *stack, layers.Dense(2, name="head")], name="normed")
        model.compile(keras.optimizers.Adam(0.1), "mse")
    nameplate.fit(model, (X, Y), batch_size=8, epochs=2, shuffle=False, **options)
    return model


def apart(strategy: Any, variables: list[keras.Variable]) -> list[str]:
    """Return the variables whose copies differ in any bit."""
    copies = {each.path: strategy.experimental_local_results(each.value) for each in variables}
    return [path for path, (one, other) in copies.items() if one.numpy().tobytes() != other.numpy().tobytes()]


def test_synchronised_statistics_weights_slots_and_seeds_are_the_same_on_all_replicas(strategy: Any) -> None:
    model = fitted(strategy)
    assert apart(strategy, [*model.variables, *model.optimizer.variables]) == []


def test_statistics_that_are_not_synchronised_are_each_replicas_own_share(strategy: Any) -> None:
    names: list[str] = []
    own: list[np.ndarray] = []

    class Looks(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:  # at the end of an epoch, and of training, they agree
                norm = self.model.get_layer("norm_a")
                names.extend(apart(strategy, self.model.variables))
                own.extend(copy.numpy() for copy in strategy.experimental_local_results(norm.moving_mean.value))

    fitted(strategy, sync_batch_norm=False, callbacks=[Looks()])
    assert [name.removeprefix("normed/") for name in names] == [
        f"norm_{each}/moving_{kind}" for each in "ab" for kind in ("mean", "variance")
    ]
    for copy, shares in zip(own, ((X[:4], X[8:11]), (X[4:8], X[11:13])), strict=True):
        expected = np.zeros(4)
        for share in shares:
            expected = 0.99 * expected + 0.01 * share.mean(0)
        np.testing.assert_allclose(copy, expected, rtol=1e-4, atol=1e-7)


def test_a15_what_is_evaluated_is_what_is_saved_while_training_and_afterwards(strategy: Any, tmp_path: Path) -> None:
    """Statistics that are not synchronised are one value, everywhere: in a callback that saves, and after `fit`."""

    class Saves(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.save(tmp_path / f"{epoch}.keras")

    model = fitted(strategy, sync_batch_norm=False, validation_data=(X, Y), callbacks=[Saves()])
    measured = model.history.history["val_loss"]
    for epoch, expected in enumerate(measured):
        saved = keras.saving.load_model(tmp_path / f"{epoch}.keras")
        assert saved.evaluate(X, Y, verbose=0) == pytest.approx(expected, rel=1e-5)
    assert apart(strategy, model.variables) == []
    model.save(tmp_path / "after.keras")
    alone = keras.saving.load_model(tmp_path / "after.keras")
    assert alone.evaluate(X, Y, verbose=0) == pytest.approx(measured[-1], rel=1e-5)
    assert nameplate.evaluate(model, (X, Y))["loss"] == pytest.approx(measured[-1], rel=1e-5)


def test_validation_measures_with_the_mean_of_statistics_that_are_not_synchronised(strategy: Any) -> None:
    model = fitted(strategy, sync_batch_norm=False, validation_data=(X, Y))
    held = [np.mean([copy.numpy() for copy in strategy.experimental_local_results(each.value)], axis=0)
            for each in model.weights]  # fmt: skip
    alone = keras.models.clone_model(model)
    alone.compile(loss="mse")
    alone.set_weights(held)
    assert alone.evaluate(X, Y, verbose=0) == pytest.approx(model.history.history["val_loss"][-1], rel=1e-5)


@pytest.mark.usefixtures("strategy")
def test_a_run_saves_the_mean_of_statistics_that_are_not_synchronised_and_each_one(tmp_path: Path) -> None:
    options = ["model=convnet", "model.width=4", "model.blocks=[1]", "data.limit=40", "data.validation=0"]
    train(tmp_path, *options, "run=a", "fit.steps=4", "strategy.sync_batch_norm=false")
    held = content(tmp_path / "a")
    statistics = [key.removeprefix("weights:") for key in held if "moving_" in key and key.startswith("weights:")]
    assert statistics
    for name in statistics:
        first, second = (held[f"state:apart/{name}@replica{index}"] for index in (0, 1))
        assert not np.array_equal(first, second)
        mean = np.mean([first, second], axis=0, dtype="float64").astype("float32")
        np.testing.assert_array_equal(held[f"weights:{name}"], mean)
