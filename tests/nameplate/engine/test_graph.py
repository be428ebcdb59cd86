"""What the loop asks of TensorFlow, read off the graph and counted: nothing more than it says."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from typing import Any
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.autograph.impl import api as autograph

from nameplate.data.feeds import HostFeed
from nameplate.engine.graph import TrainGraph, metric_values
from nameplate.engine.graph_cache import graph_of
from nameplate.training.arguments import Arguments
from nameplate.training.fit import loop_of

NUMBERS = np.random.default_rng(0)
X = NUMBERS.normal(size=(44, 4)).astype("float32")
Y = NUMBERS.integers(0, 3, 44)


def compiled(strategy: Any) -> keras.Model:
    hidden = [keras.layers.Dense(5, activation="relu", name=f"hidden{each}") for each in range(3)]
    with strategy.scope():
        model = keras.Sequential([keras.Input((4,)), *hidden, keras.layers.Dense(3, name="logits")], name="small")
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"], jit_compile=False)
    return model


def body_of(graph: TrainGraph) -> Counter[str]:
    """Return the operations of one step, by kind."""
    (concrete,) = graph._graph._list_all_concrete_functions()
    functions = concrete.graph.as_graph_def().library.function
    body = max((each for each in functions if "while_body" in each.signature.name), key=lambda each: len(each.node_def))
    return Counter(node.op for node in body.node_def)


@pytest.mark.parametrize("as_dataset", [False, True], ids=["arrays", "dataset"])
def test_steps_stay_in_one_graph_that_is_traced_once_and_fed_by_one_iterator(strategy: Any, as_dataset: bool) -> None:
    data: Any = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4) if as_dataset else (X, Y)
    model = compiled(strategy)
    calls: list[tuple[int, int]] = []
    original = TrainGraph.run

    def counted(graph: TrainGraph, epoch: int, first: int, count: int) -> np.ndarray:
        calls.append((first, count))
        return original(graph, epoch, first, count)

    with (
        strategy.scope(),
        mock.patch.object(TrainGraph, "run", counted),
        mock.patch.object(HostFeed, "begin", autospec=True, side_effect=HostFeed.begin) as begins,
        mock.patch("nameplate.training.loop.metric_values", side_effect=metric_values) as reads,
        mock.patch("nameplate.engine.graph.metric_values", side_effect=metric_values) as validations,
    ):
        loop = loop_of(model, data, Arguments(epochs=3, batch_size=4, steps_per_loop=8), validation_data=data)
        loop.run()
    assert calls == [(0, 8), (8, 3)] * 3
    assert reads.call_count == validations.call_count == 3  # at the end of an epoch
    assert begins.call_count == (1 + 1 if as_dataset else 0)
    assert loop.train.traces() == 1

    operations = body_of(loop.train)
    assert operations["AddN"] == 1 + 1  # all gradients in one piece, and the loss
    assert not [name for name in operations if "PyFunc" in name or "Print" in name or "Collective" in name]


@pytest.mark.parametrize("as_dataset", [False, pytest.param(True, marks=pytest.mark.long)], ids=["arrays", "dataset"])
@pytest.mark.parametrize(
    ("batch", "options", "traces"),
    [
        pytest.param(8, {}, 1, id="smaller"),
        pytest.param(42, {}, 2, id="fewer than replicas"),
        pytest.param(8, {"xla": True}, 2, id="XLA"),
    ],
)
def test_a_smaller_last_step_is_traced_with_the_others_where_replicas_divide_it_alike(
    strategy: Any, batch: int, options: dict[str, Any], traces: int, as_dataset: bool
) -> None:
    arrays = X[:43], Y[:43]
    data: Any = tf.data.Dataset.from_tensor_slices(arrays).batch(batch) if as_dataset else arrays
    with strategy.scope():
        loop = loop_of(compiled(strategy), data, Arguments(epochs=2, batch_size=batch, **options))
        loop.run()
    assert loop.train.traces() == traces


@pytest.mark.parametrize("xla", [False, pytest.param(True, marks=pytest.mark.long)])
def test_no_python_is_rewritten_for_the_graph(strategy: Any, monkeypatch: pytest.MonkeyPatch, xla: bool) -> None:
    rewritten: list[str] = []
    original = autograph._TRANSPILER.transform  # before its cache is asked

    def told(function: Any, context: Any) -> Any:
        rewritten.append(function.__qualname__)
        return original(function, context)

    monkeypatch.setattr(autograph._TRANSPILER, "transform", told)
    with strategy.scope():
        loop_of(compiled(strategy), (X, Y), Arguments(epochs=1, batch_size=8, xla=xla), validation_data=(X, Y)).run()
    assert rewritten == []


class Counts:
    def __init__(self) -> None:
        self.graph = graph_of(self.next)

    def next(self, number: tf.Tensor, *, by: int) -> tf.Tensor:
        return number + by


def test_a_graph_of_a_method_goes_with_its_object() -> None:
    gc.collect()
    gc.disable()
    try:
        counts = Counts()
        assert int(counts.graph(tf.constant(1), by=2)) == 3
        held = weakref.ref(counts), weakref.ref(counts.graph)
        del counts
        assert [each() for each in held] == [None, None]
    finally:
        gc.enable()


def test_many_graphs_one_after_another_are_no_reason_to_warn(caplog: pytest.LogCaptureFixture) -> None:
    assert tf.function(lambda: 0)._omit_frequent_tracing_warning is False  # TensorFlow's own, in tensorflow 2.21
    for _ in range(12):
        counts = Counts()
        counts.graph(tf.constant(1), by=1)
    assert "retracing" not in caplog.text
