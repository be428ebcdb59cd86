"""A compiled model has the parts that a step asks for."""

from __future__ import annotations

from typing import Any

import keras

from tests.trainer.replicas.private.small import small_model
from trainer.replicas.private.compiled import build_compiled, loss_tracker, overridden, takes_training
from trainer.replicas.private.optimizers import built_for


def test_a_train_step_of_the_users_own_is_seen() -> None:
    class Own(keras.Model):
        def train_step(self, data: Any) -> Any:
            return {}

    assert overridden(Own(), "train_step")
    assert not overridden(keras.Sequential(), "train_step")
    assert not overridden(Own(), "test_step")


def test_metrics_and_losses_exist_before_the_first_step() -> None:
    model = small_model(keras.optimizers.SGD(0.1))
    build_compiled(model, (keras.KerasTensor((None, 3)), keras.KerasTensor((None, 2))))
    assert loss_tracker(model) in model.metrics
    assert list(model.get_metrics_result()) == ["loss"]
    assert takes_training(model)
    assert built_for(model.optimizer) == model.trainable_variables
