"""A compiled model has the parts that a step asks for."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from nameplate.engine import private
from nameplate.engine.compile import overridden
from tests.nameplate.engine.small import small_model


def test_a_train_step_of_the_users_own_is_seen() -> None:
    class Own(keras.Model):
        def train_step(self, data: Any) -> Any:
            return {}

    assert overridden(Own(), "train_step")
    assert not overridden(keras.Sequential(), "train_step")
    assert not overridden(Own(), "test_step")


def test_metrics_and_losses_exist_before_the_first_step() -> None:
    model = small_model(keras.optimizers.SGD(0.1))
    private.build_compiled(model, (keras.KerasTensor((None, 3)), keras.KerasTensor((None, 2))))
    assert private.loss_tracker(model) in model.metrics
    assert list(model.get_metrics_result()) == ["loss"]
    assert private.takes_training(model)
    assert private.built_for(model.optimizer) == model.trainable_variables


def test_compiled_losses_are_others_inside_and_metrics_are_found_one_by_one() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="value")])
    model.compile("sgd", "mse", metrics=["mae", "mse"])
    x, y = np.ones((4, 3), "float32"), np.ones((4, 2), "float32")
    private.build_compiled(model, (keras.KerasTensor((None, 3)), keras.KerasTensor((None, 2))))
    before = float(model.compute_loss(x, y, model(x)))
    with private.replaced_losses(model, lambda loss: lambda *arguments: 7.0 + 0.0 * loss(*arguments)):
        assert float(model.compute_loss(x, y, model(x))) == 7.0
    assert float(model.compute_loss(x, y, model(x))) == before
    assert [metric.name for metric in private.measured_metrics(model)] == ["loss", "mae", "mse"]
