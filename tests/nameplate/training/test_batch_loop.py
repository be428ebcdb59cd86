"""What the graph's loop does not take is trained batch by batch, on two replicas as Keras trains it on one device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import nameplate
from nameplate.errors import NameplateError

NUMBERS = np.random.default_rng(5)
X = NUMBERS.normal(size=(23, 4)).astype("float32")
Y = NUMBERS.normal(size=(23, 2)).astype("float32")
WEIGHT = NUMBERS.random(23).astype("float32")
SIZES = (5, 3, 1, 8, 6)  # no batch divides evenly among two replicas but two, and one is smaller than their number
SAME: Any = {"rtol": 1e-5, "atol": 1e-6}  # of float32: two replicas add up in another order than one device

pytestmark = pytest.mark.filterwarnings("ignore:.*Your input ran out of data")  # Keras' word for any generator's end


def batches(*, weights: bool = False) -> Iterator[Any]:
    first = 0
    for size in SIZES:
        rows = slice(first, first + size)
        first += size
        yield (X[rows], Y[rows], WEIGHT[rows]) if weights else (X[rows], Y[rows])


class Uneven(keras.utils.PyDataset):
    """The batches of `batches`, by index."""

    def __len__(self) -> int:
        return len(SIZES)

    def __getitem__(self, index: int) -> Any:
        return list(batches())[index]


def uneven() -> tf.data.Dataset:
    spec = tuple(tf.TensorSpec((None, width), tf.float32) for width in (4, 2))
    return tf.data.Dataset.from_generator(batches, output_signature=spec)


def compiled(**options: Any) -> keras.Model:
    keras.utils.set_random_seed(1)
    norm = keras.layers.BatchNormalization(name="norm")
    layers = [keras.layers.Dense(3, activation="relu", name="hidden"), norm, keras.layers.Dense(2, name="head")]
    model = keras.Sequential([keras.Input((4,)), *layers], name="small")
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse", metrics=["mae"], **options)
    return model


def both(strategy: Any, arguments: Callable[[], dict[str, Any]], **options: Any) -> None:
    """Train with both on one device and two replicas; the history and the variables are the same."""
    expected = compiled(**options)
    history = expected.fit(verbose=0, **arguments()).history
    with strategy.scope():
        model = compiled(**options)
    found = nameplate.fit(model, **arguments()).history
    assert list(found) == list(history)
    for name, values in history.items():
        np.testing.assert_allclose(found[name], values, **SAME)
    for one, other in zip(model.variables, expected.variables, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), **SAME)


FORMS: dict[str, Callable[[], dict[str, Any]]] = {
    "a generator": lambda: {"x": batches(), "shuffle": False},
    "weights in a generator": lambda: {"x": batches(weights=True), "shuffle": False},
    "a PyDataset": lambda: {"x": Uneven(), "shuffle": False, "epochs": 2},
    "a dataset of uneven batches": lambda: {"x": uneven(), "epochs": 2, "shuffle": False},
    "validation by generator": lambda: {"x": X, "y": Y, "validation_data": batches(), "shuffle": False},
    "weights of classes": lambda: {"x": Uneven(), "shuffle": False, "class_weight": {0: 2.0, 1: 0.5}},
    "steps beyond the data": lambda: {"x": X, "y": Y, "batch_size": 8, "steps_per_epoch": 5, "shuffle": False},
}


@pytest.mark.parametrize("form", FORMS)
def test_two_replicas_train_as_one_device_does(form: str, strategy: Any) -> None:
    both(strategy, FORMS[form])


def test_several_steps_a_call_are_told_as_keras_tells_them(strategy: Any) -> None:
    told: list[Any] = []
    hears = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: told.append(batch),
        on_train_batch_end=lambda batch, logs: told.append(batch),
    )
    both(strategy, lambda: {"x": Uneven(), "shuffle": False, "callbacks": [hears]}, steps_per_execution=2)
    assert told == [0, 1, 2, 3, 4, 5] * 2


def test_an_eager_model_takes_the_steps_of_the_graph_in_the_same_order(strategy: Any) -> None:
    with strategy.scope():
        in_graph, eager = compiled(), compiled(run_eagerly=True)
    arguments: dict[str, Any] = {"batch_size": 5, "epochs": 2, "seed": 3, "validation_data": (X, Y)}
    expected = nameplate.fit(in_graph, X, Y, **arguments).history
    found = nameplate.fit(eager, X, Y, **arguments).history
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, **SAME)
    for one, other in zip(eager.variables, in_graph.variables, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), **SAME)
    np.testing.assert_allclose(nameplate.predict(eager, X), nameplate.predict(in_graph, X), **SAME)


def test_an_eager_model_runs_its_python_at_every_step(strategy: Any) -> None:
    seen: list[int] = []

    class Watched(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            seen.append(int(x.numpy().shape[0]) if hasattr(x, "numpy") else 0)
            return x

    with strategy.scope():
        model = keras.Sequential([keras.Input((4,)), Watched(name="watched"), keras.layers.Dense(2)], name="watching")
        model.compile("sgd", "mse", run_eagerly=True)
    seen.clear()
    nameplate.fit(model, X, Y, batch_size=8)
    assert [size for size in seen if size] == [8, 8, 7]


def test_evaluation_and_prediction_take_the_same_data(strategy: Any) -> None:
    with strategy.scope():
        model = compiled()
    nameplate.fit(model, X, Y)
    expected = nameplate.evaluate(model, X, Y)
    for data in (batches(), Uneven(), uneven()):
        assert nameplate.evaluate(model, data) == pytest.approx(expected, rel=1e-5)
    for data in (((x,) for x, _ in batches()), Uneven(), uneven()):
        np.testing.assert_allclose(nameplate.predict(model, data), nameplate.predict(model, X), **SAME)


def test_ragged_examples_are_divided_by_rows(strategy: Any) -> None:
    rows = tf.ragged.constant([[1.0], [2.0, 3.0], [4.0], [5.0, 6.0, 7.0], [8.0]])
    targets = np.arange(5, dtype="float32")[:, None]
    losses = []
    for by, scope in ((keras.Model.fit, None), (nameplate.fit, strategy)):
        with scope.scope() if scope else tf.device("CPU:0"):
            keras.utils.set_random_seed(1)
            inputs = keras.Input((None,), ragged=True)
            sums = keras.layers.Lambda(lambda x: tf.reduce_sum(x, 1)[:, None], output_shape=(1,), name="sums")(inputs)
            model = keras.Model(inputs, keras.layers.Dense(1, name="head")(sums), name="ragged")
            model.compile("sgd", "mse")
        losses.append(by(model, rows, targets, batch_size=3, shuffle=False, epochs=2, verbose=0).history["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.filterwarnings("ignore:nothing to train")
def test_a_loss_may_be_a_plain_number(strategy: Any) -> None:
    with strategy.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.ReLU(name="relu")], name="constant")
        model.compile("sgd", loss=lambda y_true, y_pred: 3)
    assert nameplate.fit(model, X, X, batch_size=8).history["loss"] == [pytest.approx(3.0)]


def test_statistics_of_each_replicas_own_are_averaged_for_validation_as_in_the_graph(strategy: Any) -> None:
    seen: dict[str, list[Any]] = {}

    class Sees(keras.callbacks.Callback):
        def __init__(self, key: str) -> None:
            super().__init__()
            self.seen = seen.setdefault(key, [])

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            copies = strategy.experimental_local_results(self.model.get_layer("norm").moving_mean.value)
            self.seen.append([copy.numpy() for copy in copies])

    def even() -> Iterator[Any]:
        for first in (0, 8) * 3:
            yield X[first : first + 8], Y[first : first + 8]

    with strategy.scope():
        in_graph, by_batch = compiled(), compiled()
    given: dict[str, Any] = {"epochs": 3, "shuffle": False, "sync_batch_norm": False, "validation_data": (X, Y)}
    options: dict[str, Any] = {"batch_size": 8, "callbacks": [Sees("graph")]}
    expected = nameplate.fit(in_graph, X[:16], Y[:16], **given, **options).history
    found = nameplate.fit(by_batch, even(), steps_per_epoch=2, **given, callbacks=[Sees("batches")]).history
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, **SAME)
    np.testing.assert_allclose(seen["batches"], seen["graph"], **SAME)
    assert all((one == other).all() for one, other in seen["batches"])
    for one, other in zip(by_batch.variables, in_graph.variables, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), **SAME)


def test_steps_in_all_end_it(strategy: Any) -> None:
    with strategy.scope():
        model = compiled()
    nameplate.fit(model, Uneven(), epochs=3, steps=7, shuffle=False)
    assert model.optimizer.iterations.numpy() == 7


def test_a_run_refuses_what_it_could_not_resume(strategy: Any, tmp_path: Any) -> None:
    with strategy.scope():
        model, eager = compiled(), compiled(run_eagerly=True)
    with pytest.raises(NameplateError, match=r"run=: a run resumes exactly.*generator is known only to Python"):
        nameplate.fit(model, batches(), run=tmp_path / "run")
    with pytest.raises(NameplateError, match=r"run=: .*run_eagerly=True: leave it out"):
        nameplate.fit(eager, X, Y, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
