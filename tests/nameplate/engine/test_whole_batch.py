"""Losses and metrics that do not fall apart into the replicas' shares are those of the whole batch."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import nameplate
from nameplate.engine import whole_batch
from nameplate.engine.graph import as_logged
from nameplate.engine.whole_batch import has_own_call, is_mean_of_rows, is_sum_of_states
from nameplate.errors import NameplateError
from nameplate.training.state import train_state
from tests.long import cases
from tests.nameplate.engine.replication.data import vectors
from tests.nameplate.engine.replication.oracle import same_as_keras


def floats(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(array.astype("float32") for array in arrays)


def data(size: int = 21, *, weighted: bool = False, binary: bool = False) -> tuple[np.ndarray, ...]:
    x, y = vectors(size)
    weight = np.abs(np.random.default_rng(5).normal(size=size)) + 0.1
    return floats(x, (y > 0) if binary else y, *([weight] if weighted else []))


def model(loss: Any, *, activation: str | None = None, metrics: Any = ("mae",), **options: Any) -> keras.Model:
    inputs = keras.Input((6,), name="features")
    hidden = layers.Dense(5, activation="tanh", name="hidden")(inputs)
    made = keras.Model(inputs, layers.Dense(2, activation=activation, name="value")(hidden), name="small")
    made.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss=loss, metrics=list(metrics), **options)
    return made


class Doubled(keras.losses.Loss):
    """Takes its mean by itself, of all that it is given."""

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return 2 * ops.mean(ops.square(y_true - y_pred))


class Weighted(keras.losses.MeanSquaredError):
    """Divides by what the weights come to, as no reduction of Keras' does."""

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        errors = ops.mean(ops.square(y_true - y_pred), axis=-1)
        weights = ops.ones_like(errors) if sample_weight is None else ops.square(sample_weight)
        return ops.sum(errors * weights) / ops.sum(weights)


class Wrapped(keras.losses.MeanSquaredError):
    """Adds to what Keras makes of it."""

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return 0.5 * super().__call__(y_true, y_pred, sample_weight) + 0.1


class PerRow(keras.losses.Loss):
    """Has a number an example, as Keras asks of a loss."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.mean(ops.abs(y_true - y_pred), axis=-1)


def mean(y_true: Any, y_pred: Any) -> Any:
    return ops.mean(ops.square(y_true - y_pred))


def total(y_true: Any, y_pred: Any) -> Any:
    return ops.sum(ops.square(y_true - y_pred))


def root(y_true: Any, y_pred: Any) -> Any:
    return ops.sqrt(ops.mean(ops.square(y_true - y_pred)))


def contrastive(y_true: Any, y_pred: Any) -> Any:
    """Compare each example with all others: a number an example, none of which is its own affair."""
    similar = ops.matmul(y_pred, ops.transpose(y_true))
    return -ops.diagonal(ops.log_softmax(similar, axis=-1))


@pytest.mark.parametrize("weighted", cases([False, True], short=[True]))
@pytest.mark.parametrize("loss", [Doubled(), Weighted(), Wrapped()], ids=lambda loss: type(loss).__name__)
def test_a4_a_loss_that_overrides_call_counts_once(strategy: Any, loss: Any, weighted: bool) -> None:
    same_as_keras(strategy, lambda: model(loss), data(weighted=weighted))


@pytest.mark.parametrize("weighted", cases([False, True], short=[True]))
@pytest.mark.parametrize("loss", cases([mean, total, root, contrastive, PerRow], short=[root, contrastive, PerRow]))
def test_a5_a_scalar_loss_is_that_of_the_whole_batch(strategy: Any, loss: Any, weighted: bool) -> None:
    same_as_keras(strategy, lambda: model(loss() if loss is PerRow else loss), data(weighted=weighted))


@pytest.mark.parametrize(
    "loss",
    [
        keras.losses.Dice(),
        pytest.param(keras.losses.Dice(axis=0), marks=pytest.mark.long),
        pytest.param(keras.losses.Tversky(), marks=pytest.mark.long),
    ],
    ids=["dice", "dice by class", "tversky"],
)
def test_a5_dice_and_tversky_are_over_the_whole_batch(strategy: Any, loss: Any) -> None:
    same_as_keras(strategy, lambda: model(loss, activation="sigmoid"), data(binary=True))


@pytest.mark.long
def test_a5_circle_compares_all_examples_of_the_batch(strategy: Any) -> None:
    x, _ = data()
    labels = np.random.default_rng(0).integers(0, 3, len(x))

    def build() -> keras.Model:
        made = model(None, metrics=())
        unit = keras.Model(made.input, layers.UnitNormalization(name="unit")(made.output), name="unit_length")
        unit.compile(keras.optimizers.SGD(0.01), loss=keras.losses.Circle())
        return unit

    same_as_keras(strategy, build, (x, labels))


@pytest.mark.parametrize("xla", cases([False, True], short=[False]))
def test_a5_fewer_examples_than_replicas_and_xla_give_the_same(strategy: Any, xla: bool) -> None:
    same_as_keras(strategy, lambda: model(Weighted()), data(17, weighted=True), xla=xla)


def test_a5_outputs_with_losses_of_each_kind(strategy: Any) -> None:
    """Each output's loss is of its own kind; what `model.fit` tells of them are means over batches of one size."""
    x, y = data(16)

    def build() -> keras.Model:
        made = model(None, metrics=())
        outputs = {name: layers.Dense(2, name=name)(made.output) for name in ("near", "far", "own")}
        three = keras.Model(made.input, outputs, name="three")
        three.compile(
            keras.optimizers.SGD(0.01),
            loss={"near": root, "far": total, "own": "mae"},
            loss_weights={"near": 1.0, "far": 0.1, "own": 1.0},
        )
        return three

    same_as_keras(strategy, build, (x, dict.fromkeys(("near", "far", "own"), y)))


class Largest(keras.metrics.Metric):
    """The largest error so far: a state that does not add up."""

    def __init__(self, name: str = "largest") -> None:
        super().__init__(name=name)
        self.largest = self.add_variable((), "zeros", name="largest")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.largest.assign(ops.maximum(self.largest, ops.max(ops.abs(y_true - y_pred))))

    def result(self) -> Any:
        return 1.0 * self.largest  # the variable itself would be read after validation has overwritten it


def test_a11_such_a_state_is_saved_once_and_adds_up_on_any_replicas(strategy: Any) -> None:
    with strategy.scope():
        made = model("mse", metrics=[Largest()])
        history = nameplate.fit(made, data()).history
        saved = train_state(made).capture()["state"]
    first, second = (saved[f"metrics/largest/largest@replica{index}"] for index in (0, 1))
    np.testing.assert_allclose([first, second], [history["largest"][0], 0.0], rtol=1e-6)


class Smallest(keras.metrics.Metric):
    """The smallest error so far, from a large number on."""

    def __init__(self) -> None:
        super().__init__(name="smallest")
        self.smallest = self.add_variable((), keras.initializers.Constant(99.0), name="smallest")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.smallest.assign(ops.minimum(self.smallest, ops.min(ops.abs(y_true - y_pred))))

    def result(self) -> Any:
        return 1.0 * self.smallest

    def reset_state(self) -> None:
        self.smallest.assign(99.0)


class Running(Largest):
    """A mean that forgets."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.largest.assign(0.9 * self.largest + 0.1 * ops.mean(ops.abs(y_true - y_pred)))


class Adding(Largest):
    """A count of large errors, which does add up."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.largest.assign_add(ops.sum(ops.cast(ops.abs(y_true - y_pred) > 0.5, "float32")))


METRICS: dict[str, Any] = {
    "largest": Largest,
    "smallest": Smallest,
    "running": Running,
    "adding": Adding,
    "root": lambda: root,
    "mean": lambda: mean,
    "row": lambda: PerRow().call,
}


@pytest.mark.parametrize("size", cases([17, 21], short=[17]))
def test_a11_a_metric_whose_state_does_not_add_up_sees_the_whole_batch(strategy: Any, size: int) -> None:
    def build() -> keras.Model:
        metrics = [metric() for metric in METRICS.values()]
        return model("mse", metrics=metrics, weighted_metrics=["mse", Adding()])

    same_as_keras(strategy, build, data(size, weighted=True))


def test_a4_a_loss_that_gives_a_number_an_example_to_a_step_is_refused(strategy: Any) -> None:
    class Rows(keras.losses.Loss):
        def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            return ops.mean(ops.square(y_true - y_pred), axis=-1)

    with strategy.scope():
        made = model(Rows(name="rows"))
    with pytest.raises(NameplateError, match=r"'rows' gives a number an example"):
        nameplate.fit(made, data())


def test_a11_a_metric_of_a_models_own_is_reduced_rightly(strategy: Any) -> None:
    class Measures(keras.Sequential):
        def __init__(self) -> None:
            super().__init__([keras.Input((6,)), layers.Dense(2, name="value")], name="measures")
            self.largest = Largest()

        def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            self.largest.update_state(y, y_pred)
            return super().compute_metrics(x, y, y_pred, sample_weight)

    def build() -> keras.Model:
        made = Measures()
        made.compile("sgd", "mse", metrics=["mae"])
        return made

    same_as_keras(strategy, build, data())


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


def test_a_metric_that_is_the_same_on_all_replicas_is_read_from_one(strategy: Any) -> None:
    with strategy.scope():
        metric = keras.metrics.Sum()
        metric.update_state(0.0)
        strategy.run(lambda: metric.update_state(3.0))
        assert as_logged(metric.result()) == 6.0
        whole_batch._read_on_first_replica(metric)
        assert as_logged(metric.result()) == 3.0
    assert as_logged(tf.constant([1.5, 2.0], tf.bfloat16)).tolist() == [1.5, 2.0]  # type: ignore[union-attr]
