"""The graphs that a model keeps between calls: the same work on data of the same shapes is not traced again.

A trace holds whatever its Python had when it ran. So a graph is kept under a signature of all of that which can change:
the variables, the settings of every layer, the optimizer and the metrics, and the shapes and the order of the data. It
serves again only if all of it is the same, and it is out of the cache while it serves.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import keras
import tensorflow as tf

from nameplate.data.feeds import Feed
from nameplate.engine.host_collectives import several_workers
from nameplate.engine.private import trace_often
from nameplate.engine.private_loop import CHANGED_BY_CALLS
from nameplate.engine.reductions import UntriedStepError
from nameplate.engine.replica import Step
from nameplate.errors import NameplateError
from nameplate.graph.name_contract import GUARDED
from nameplate.graph.tree import layers

_DEEPEST = 4  # levels of lists among the settings of a layer
MOST = 6  # graphs that a model keeps: those of training, validation and prediction, for two sizes of data
_NAME = "_nameplate_graphs"  # the attribute of the model
# Attributes that a call changes and no trace reads.
_CHANGING = {*CHANGED_BY_CALLS, *GUARDED, _NAME}


@dataclass(frozen=True)
class Signature:
    """What a trace depends on."""

    objects: tuple[Any, ...]  # compared by identity; held, so that no other object takes the place of one
    values: Hashable

    def matches(self, other: Signature) -> bool:
        """Say whether a graph traced under the other signature serves this one."""
        same = len(self.objects) == len(other.objects) and self.values == other.values
        return same and all(mine is its for mine, its in zip(self.objects, other.objects, strict=True))


class Graph:
    """Steps of a model on all replicas, in a graph that serves one feed after another."""

    training = False
    _steps: Callable[..., Any]  # runs steps on all replicas; a method, which is traced

    def __init__(self, step: Step, feed: Feed) -> None:
        self._step, self._feed = step, feed
        self._strategy = tf.distribute.get_strategy()
        self._iterator: Any = None
        self._place: Any = None  # where the examples of an earlier feed were
        self.signature: Signature | None = None
        self.trace_again()
        feed.hold(None)

    def _call(self, *arguments: Any, last: bool | None) -> Any:
        try:
            return self._graph(*arguments, last=last)
        except UntriedStepError as untried:
            self._step.try_out(untried.examples, training=self.training)
        self.trace_again()
        return self._graph(*arguments, last=last)

    def trace_again(self) -> None:
        """Trace the steps when they run next."""
        self._graph = graph_of(self._steps)

    def serve(self, feed: Feed) -> None:
        """Take the examples of another feed from now on."""
        feed.hold(self._place)
        self._feed = feed

    def release(self) -> None:
        """Drop the data; leave the graph to the model, to serve again unless the model has changed since the trace."""
        self._iterator = None
        self._place = self._feed.release()
        signature = signature_of(type(self), self._step, self._feed)
        if self.signature is not None and self.signature.matches(signature):
            kept = _graphs(self._step.model)
            kept.append(self)
            del kept[:-MOST]
        del self._feed


G = TypeVar("G", bound=Graph)


def graph_for(make: type[G], step: Step, feed: Feed) -> G:
    """Return a graph for this feed: one that the model keeps from an earlier call, or a new one."""
    if several_workers() or step.augmentation is not None:
        return make(step, feed)  # workers must trace together; augmentation is a configured run's, which trains once
    signature = signature_of(make, step, feed)
    kept = _graphs(step.model)
    for index, graph in enumerate(kept):
        if graph.signature is not None and graph.signature.matches(signature):
            del kept[index]
            graph.serve(feed)
            return graph
    graph = make(step, feed)
    graph.signature = signature
    return graph


def _graphs(model: keras.Model) -> list[Any]:
    """Return the model's own list of graphs, which goes when the model goes."""
    if not hasattr(model, _NAME):
        setattr(model, _NAME, _Untracked())
    graphs: list[Any] = getattr(model, _NAME).graphs
    return graphs


class _Untracked:
    """Keras makes containers of its own out of the lists that a layer holds, and searches them for layers."""

    def __init__(self) -> None:
        self.graphs: list[Any] = []


def signature_of(make: Any, step: Step, feed: Feed) -> Signature:
    """Return the signature of a graph of this class for a step and a feed."""
    model = step.model
    objects = list(_identified(model))
    settings = tuple(_settings(part, objects) for part in _parts(model))
    weights = None if step.class_weights is None else tuple(step.class_weights.numpy().tolist())
    config = keras.config.floatx(), keras.config.epsilon(), keras.config.image_data_format()
    return Signature(tuple(objects), (make, step.xla, weights, feed.signature, config, settings))


def _parts(model: keras.Model) -> Iterator[Any]:
    """Yield everything whose settings a trace reads."""
    yield model
    yield from layers(model).values()
    yield from model.metrics
    yield from filter(None, [getattr(model, "optimizer", None)])


def _identified(model: keras.Model) -> Iterator[Any]:
    """Yield the objects that a trace refers to."""
    yield from _parts(model)
    yield from model.variables
    yield from model.metrics_variables
    yield from getattr(getattr(model, "optimizer", None), "variables", [])


def _settings(part: Any, objects: list[Any]) -> Hashable:
    """Return the plain attributes of a layer, metric or optimizer; add its functions and policies to the objects.

    An object is held, not just its address: of an old schedule that is freed, a new one may get the address.
    """
    attributes = sorted(vars(part).items(), key=lambda item: item[0])
    return tuple((name, _plain(value, objects)) for name, value in attributes if name not in _CHANGING)


def _plain(value: Any, objects: list[Any], depth: int = 0) -> Hashable:
    if value is None or isinstance(value, bool | int | float | str):
        return type(value), value
    if isinstance(value, tuple | list) and depth < _DEEPEST:
        return tuple(_plain(inner, objects, depth + 1) for inner in value)
    if isinstance(value, dict) and depth < _DEEPEST:
        return tuple((str(key), _plain(inner, objects, depth + 1)) for key, inner in value.items())
    if callable(value) or isinstance(value, keras.DTypePolicy):
        objects.append(value)
    return type(value).__name__


def graph_of(steps: Callable[..., Any]) -> Any:
    """Return a bound method as a `tf.function` that its object may hold: both are freed when the object is dropped.

    TensorFlow counts traces by the address of a function. It would mistake a function that is created at the address of
    an earlier one for the same, and warn of frequent tracing.

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
    trace_often(graph)
    return graph
