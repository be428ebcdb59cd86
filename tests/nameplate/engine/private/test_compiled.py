"""A compiled model has the parts that a step asks for."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nameplate.engine.private.compiled import (
    as_logged,
    build_compiled,
    has_own_call,
    is_mean_of_rows,
    is_sum_of_states,
    loss_tracker,
    measured_metrics,
    overridden,
    read_on_first_replica,
    replaced_losses,
    takes_training,
)
from nameplate.engine.private.optimizers import built_for
from tests.nameplate.engine.private.small import small_model


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


def test_losses_of_keras_fall_apart_into_examples_but_for_those_that_compare_them() -> None:
    class Own(keras.losses.Loss):
        def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            return 0.0

    apart = [keras.losses.MeanSquaredError(), keras.losses.CategoricalCrossentropy(), keras.losses.CTC()]
    whole = [keras.losses.Dice(), keras.losses.Tversky(), keras.losses.Circle(), Own()]
    assert [is_mean_of_rows(loss) for loss in (*apart, *whole)] == [True] * 3 + [False] * 4
    assert [has_own_call(loss) for loss in whole] == [False] * 3 + [True]


def test_metrics_of_keras_add_up_but_for_those_around_a_function_of_the_users() -> None:
    def own(y_true: Any, y_pred: Any) -> Any:
        return keras.ops.max(y_true - y_pred)

    class Largest(keras.metrics.Metric):
        pass

    known = [keras.metrics.AUC(), keras.metrics.MeanAbsoluteError(), keras.metrics.F1Score()]
    assert [is_sum_of_states(metric) for metric in known] == [True] * 3
    assert not is_sum_of_states(keras.metrics.MeanMetricWrapper(own))
    assert not is_sum_of_states(Largest())


def test_compiled_losses_are_others_inside_and_metrics_are_found_one_by_one() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="value")])
    model.compile("sgd", "mse", metrics=["mae", "mse"])
    x, y = np.ones((4, 3), "float32"), np.ones((4, 2), "float32")
    build_compiled(model, (keras.KerasTensor((None, 3)), keras.KerasTensor((None, 2))))
    before = float(model.compute_loss(x, y, model(x)))
    with replaced_losses(model, lambda loss: lambda *arguments: 7.0 + 0.0 * loss(*arguments)):
        assert float(model.compute_loss(x, y, model(x))) == 7.0
    assert float(model.compute_loss(x, y, model(x))) == before
    assert [metric.name for metric in measured_metrics(model)] == ["loss", "mae", "mse"]


def test_a_metric_that_is_the_same_on_all_replicas_is_read_from_one(strategy: Any) -> None:
    with strategy.scope():
        metric = keras.metrics.Sum()
        metric.update_state(0.0)
        strategy.run(lambda: metric.update_state(3.0))
        assert as_logged(metric.result()) == 6.0
        read_on_first_replica(metric)
        assert as_logged(metric.result()) == 3.0
    assert as_logged(tf.constant([1.5, 2.0], tf.bfloat16)).tolist() == [1.5, 2.0]  # type: ignore[union-attr]
