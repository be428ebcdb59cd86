"""Tracing: gradients of our own, graphs of methods, and the outputs of layers inside a model."""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import record

from nameplate.errors import NameplateError


def with_gradient(
    outputs: Sequence[tf.Tensor], inputs: Sequence[tf.Tensor], gradient: Callable[..., Sequence[Any]]
) -> list[tf.Tensor]:
    """Return the outputs as if computed from the inputs by an operation with this gradient.

    `gradient` is called with the gradients by the outputs and returns those by the inputs. `tf.custom_gradient` would
    keep the function, and with it the graph and the data that it holds, until the process ends; and it would search
    the graph behind the outputs for variables (ops/custom_gradient.py).
    """
    with record.stop_recording():
        copies = [tf.identity(output) for output in outputs]
    record.record_operation("WithGradient", copies, list(inputs), gradient)
    return copies


def graph_of(steps: Callable[..., Any]) -> Any:
    """Return a bound method as a `tf.function` that its object may hold: both are freed when the object is dropped.

    TensorFlow counts traces by the address of a function. It would mistake a function that is created at the address of
    an earlier one for the same, and warn of frequent tracing (`Function._omit_frequent_tracing_warning`,
    eager/polymorphic_function).

    Raises:
        NameplateError: functions run eagerly, where replicas cannot exchange anything.
    """
    if tf.config.functions_run_eagerly():
        raise NameplateError(
            "tf.config.run_functions_eagerly(True): replicas run only in a graph; "
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


@contextmanager
def capturing(layers: Mapping[str, Any], *, stop: bool) -> Iterator[dict[str, Any]]:
    """Inside, the output of a layer's first call is stored under its key; with `stop` the last of them ends the block.

    `Operation.__call__` (ops/operation.py) runs the attribute `call`, or `quantized_call` of a quantized layer; it is
    shadowed on the instance until the block ends.
    """
    found: dict[str, Any] = {}
    shadowed = []
    try:
        for name, layer in layers.items():
            for method in ("call", "quantized_call"):
                if hasattr(layer, method):
                    shadowed.append((layer, method, layer.__dict__.get(method)))
                    layer.__dict__[method] = _kept(getattr(layer, method), name, found, len(layers) if stop else None)
        with contextlib.suppress(Enough):
            yield found
    finally:
        for layer, method, before in reversed(shadowed):
            layer.__dict__.pop(method)
            if before is not None:
                layer.__dict__[method] = before


class Enough(BaseException):  # not an Exception: it must pass `except Exception` on its way out of a model
    """All wanted outputs have been captured."""


def _kept(call: Any, name: str, found: dict[str, Any], enough: int | None) -> Any:
    @functools.wraps(call)
    def keep(*arguments: Any, **keywords: Any) -> Any:
        output = call(*arguments, **keywords)
        found.setdefault(name, output)
        if len(found) == enough:
            raise Enough
        return output

    return keep


@contextmanager
def any_size(graphs: Sequence[Any]) -> Iterator[None]:
    """Inside, models do not compare the sizes of their inputs with those they were built for; their layers still do.

    `Layer._assert_input_compatibility` (layers/layer.py, models/functional.py).
    """
    for graph in graphs:
        graph.__dict__["_assert_input_compatibility"] = lambda *_: None
    try:
        yield
    finally:
        for graph in graphs:
            graph.__dict__.pop("_assert_input_compatibility", None)


def logits(output: Any) -> Any:
    """Return what a softmax or sigmoid made a tensor from (`_keras_logits`, backend/tensorflow/nn.py), or itself."""
    return getattr(output, "_keras_logits", output)
