"""Methods as graphs, which last as long as their objects and are not mistaken for one another."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from models.errors import NameplateError


def graph_of(steps: Callable[..., Any]) -> Any:
    """Return a bound method as a `tf.function` that its object may hold: both go when the object is dropped.

    TensorFlow counts traces by where a function is in memory, and would take one that comes after another for the same,
    traced again and again: it warns of that (`Function._omit_frequent_tracing_warning`, eager/polymorphic_function).

    Raises:
        NameplateError: functions run eagerly, where replicas cannot exchange anything.
    """
    if tf.config.functions_run_eagerly():
        raise NameplateError(
            "tf.config.run_functions_eagerly(True): replicas run in the graph alone; "
            "call tf.config.run_functions_eagerly(False) first"
        )
    method = weakref.WeakMethod(steps)

    def of_object(*arguments: Any, **keywords: Any) -> Any:
        held = method()
        assert held is not None  # it is the object that runs the graph
        return held(*arguments, **keywords)

    of_object.__name__ = steps.__name__
    graph = tf.function(of_object, autograph=False, reduce_retracing=True)
    graph._omit_frequent_tracing_warning = True
    return graph
