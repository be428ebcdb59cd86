"""Layers that a model calls from several places: which of them a `.keras` file can hold as one."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import keras

from models import keras_private
from models.tree import direct, owned_variables, walk


def in_wrappers(model: keras.Model) -> list[int]:
    """Return the ids of layers that several places hold, at most one of them a graph, so that marks keep them one."""
    return [id(layer) for layer, _, holders in _shared(model) if sum(map(_is_graph, holders)) < 2]


def between_graphs(model: keras.Model) -> list[str]:
    """Return the layers with weights that several graphs call, with these; a file lists them once for each graph.

    Left out is what the class of the outer graph calls in its constructor, since it does so again.
    """
    problems = []
    for _, name, holders in _shared(model):
        graphs = [each for each in holders if _is_graph(each)]
        listing = [each for each in graphs if _lists(each)]
        coded = [each for each in graphs if not _lists(each) and any(_is_inside(each, outer) for outer in listing)]
        if listing and len(listing) + len(coded) > 1:
            told = " and ".join(repr(str(each.name)) for each in [*listing, *coded])
            problems.append(f"{name}: called in {told}")
    return problems


def _shared(model: keras.Model) -> list[tuple[Any, str, list[Any]]]:
    """Return (layer, its name, all that hold it directly) of each with weights that is held several times."""
    entries = walk(model)
    holders: dict[int, list[Any]] = defaultdict(list)
    for container in [model, *(entry.layer for entry in entries)]:
        for child in direct(container):
            holders[id(child)].append(container)
    found = [(entry.layer, entry.name, holders[id(entry.layer)]) for entry in entries if len(entry.sites) > 1]
    return [each for each in found if isinstance(each[0], keras.Layer) and owned_variables(each[0])]


def _is_graph(container: Any) -> bool:
    return isinstance(container, keras_private.Functional | keras.Sequential)


def _lists(graph: Any) -> bool:
    """Tell whether a graph's configuration lists its layers; that of a class has what its constructor takes."""
    return isinstance(graph, keras.Sequential) or keras_private.rebuilds_from_tensors(graph)


def _is_inside(layer: Any, container: Any) -> bool:
    return any(entry.layer is layer for entry in walk(container))
