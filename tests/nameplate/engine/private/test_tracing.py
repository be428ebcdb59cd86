"""Graphs of methods go with their objects, and one after another is no reason to warn."""

from __future__ import annotations

import gc
import weakref

import pytest
import tensorflow as tf

from nameplate.engine.private.tracing import graph_of


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
