"""A second call on a model, with data of the same shapes, is not traced again, and gives what a new trace would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import nameplate
from nameplate.engine import graph_cache
from tests.nameplate.engine.replication.training import OnDisk

NUMBERS = np.random.default_rng(0)
X, OTHER_X = NUMBERS.normal(size=(2, 20, 6)).astype("float32")
Y, OTHER_Y = X[:, :2] ** 2, OTHER_X[:, :2] - 1.0


class Scaled(keras.layers.Dense):
    """Counts how often Python runs it, which is once a trace and replica; `rate` is a number that a trace keeps."""

    calls, rate = 0, 1.0

    def call(self, inputs: Any) -> Any:
        self.__class__.calls += 1
        return super().call(inputs) * self.rate


def built(scope: Any) -> keras.Model:
    with scope:
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6,), name="x")
        body = Scaled(5, activation="tanh", name="body")
        body.rate = 1.0
        x = keras.layers.BatchNormalization(name="norm")(body(inputs))
        model = keras.Model(inputs, keras.layers.Dense(2, name="y")(x), name="model")
        model.compile("adam", "mse", metrics=["mae"])
    return model


@pytest.fixture
def model(strategy: Any) -> keras.Model:
    return built(strategy.scope())


def fitted(model: keras.Model, x: Any = X, y: Any = Y, **arguments: Any) -> keras.callbacks.History:
    given: dict[str, Any] = {"validation_data": (OTHER_X, OTHER_Y), "batch_size": 8, "epochs": 2, "seed": 3} | arguments
    return nameplate.fit(model, (x, y), **given)


def traces(call: Callable[[], Any]) -> int:
    """Return how often a call ran the Python of the layer."""
    before = Scaled.calls
    call()
    return Scaled.calls - before


CALLS: dict[str, Callable[[keras.Model], Any]] = {
    "fit": lambda model: fitted(model),
    "fit with other data": lambda model: fitted(model, OTHER_X, OTHER_Y, validation_data=(X, Y)),
    "fit from files": lambda model: nameplate.fit(model, OnDisk((X, Y)), batch_size=8),
    "fit on a dataset": lambda model: nameplate.fit(model, tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)),
    "evaluate": lambda model: nameplate.evaluate(model, (X, Y), batch_size=8),
    "predict": lambda model: nameplate.predict(model, X, batch_size=8),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_second_call_runs_no_python_of_the_model(model: keras.Model, name: str) -> None:
    call = CALLS[name]
    assert traces(lambda: call(model)) > 0
    assert traces(lambda: call(model)) == 0
    assert traces(lambda: call(model)) == 0


def test_a_graph_that_serves_again_gives_what_a_new_one_gives(strategy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def results() -> list[Any]:
        model = built(strategy.scope())
        first = fitted(model).history
        second = fitted(model, OTHER_X, OTHER_Y).history
        third = fitted(model, validation_data=(X, Y)).history
        measured = [nameplate.evaluate(model, each, batch_size=8) for each in ((X, Y), (OTHER_X, OTHER_Y))]
        predicted = [nameplate.predict(model, each, batch_size=8) for each in (X, OTHER_X, X)]
        return [first, second, third, measured, predicted, model.get_weights()]

    kept = results()
    monkeypatch.setattr(graph_cache.Signature, "matches", lambda *_: False)  # nothing is kept
    new = results()
    tf.nest.map_structure(np.testing.assert_array_equal, kept, new)


def _recompiled(model: keras.Model) -> None:
    with model.distribute_strategy.scope():
        model.compile("sgd", "mae")


def _frozen(model: keras.Model) -> None:
    model.get_layer("body").trainable = False


CHANGES: dict[str, Callable[[keras.Model], Any]] = {
    "nothing trains in a layer": _frozen,
    "a number of a layer": lambda model: setattr(model.get_layer("body"), "rate", 0.5),
    "an activation": lambda model: setattr(model.get_layer("body"), "activation", keras.ops.relu),
    "compile": _recompiled,
    "clipping": lambda model: setattr(model.optimizer, "clipnorm", 1e-3),
    "a precision": lambda model: setattr(model.get_layer("body"), "dtype_policy", keras.DTypePolicy("mixed_bfloat16")),
    "a regularizer": lambda model: setattr(model.get_layer("body"), "kernel_regularizer", keras.regularizers.L2(0.1)),
    "a constant of the optimizer": lambda model: setattr(model.optimizer, "beta_1", 0.5),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_trace_has_read_is_traced_again_once_it_changes(strategy: Any, model: keras.Model, change: str) -> None:
    fitted(model)
    CHANGES[change](model)
    assert traces(lambda: fitted(model)) > 0
    again = built(strategy.scope())
    fitted(again)
    again._nameplate_graphs.graphs.clear()
    CHANGES[change](again)
    fitted(again)
    for kept, new in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, new)


@pytest.mark.parametrize(
    "arguments",
    [{"batch_size": 4}, {"seed": 4}, {"shuffle": False}],
    ids=str,
)
def test_other_arguments_are_other_graphs(model: keras.Model, arguments: dict[str, Any]) -> None:
    fitted(model)
    assert traces(lambda: fitted(model, **arguments)) > 0


def test_an_evaluation_inside_a_fit_has_a_graph_of_its_own(model: keras.Model) -> None:
    """The one of the validation is in use: another feed would take its place."""
    seen = []

    class Evaluates(keras.callbacks.Callback):
        def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 0:
                seen.append(nameplate.evaluate(model, (X, Y), batch_size=8)["loss"])

    plain = built(model.distribute_strategy.scope())
    with_callback = fitted(model, epochs=1, callbacks=[Evaluates()]).history
    without = fitted(plain, epochs=1).history
    assert len(seen) == 1
    assert seen[0] == nameplate.evaluate(plain, (X, Y), batch_size=8)["loss"]
    assert with_callback["loss"] == without["loss"]


def test_a_model_keeps_few_graphs_and_none_that_is_out_of_date(model: keras.Model) -> None:
    for batch_size in (4, 5, 6, 7, 8, 9, 10):
        nameplate.predict(model, X, batch_size=batch_size)
    assert len(model._nameplate_graphs.graphs) == graph_cache.MOST

    class Freezes(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            _frozen(self.model)

    model._nameplate_graphs.graphs.clear()
    fitted(model, callbacks=[Freezes()])
    assert model._nameplate_graphs.graphs == []
