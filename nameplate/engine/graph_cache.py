"""The graphs that a model keeps between calls: the same work on data of the same shapes is not traced again.

A trace holds whatever its Python had when it ran. So a graph is kept under a signature of all of that which can change:
the variables, the settings of every layer, the optimizer and the metrics, and the shapes and the order of the data. It
serves again only if all of it is the same, and it is out of the cache while it serves.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import keras

from nameplate.data.feeds import Feed
from nameplate.engine.host_collectives import several_workers
from nameplate.engine.private_loop import CHANGED_BY_CALLS
from nameplate.engine.replica import Step
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


class Graph(Protocol):
    """A graph that can serve one feed after another."""

    signature: Signature | None

    def serve(self, feed: Feed) -> None:
        """Take the examples of another feed from now on."""


G = TypeVar("G", bound=Graph)


def graph_for(make: Callable[[Step, Feed], G], step: Step, feed: Feed) -> G:
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


def keep(graph: Graph, step: Step, feed: Feed) -> None:
    """Keep a graph that has served, unless its model is not as it was traced any more."""
    if graph.signature is None or not graph.signature.matches(signature_of(type(graph), step, feed)):
        return
    kept = _graphs(step.model)
    kept.append(graph)
    del kept[:-MOST]


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
