"""Addresses: which layer a qualified name means, and in which graphs it is called."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import keras

from nameplate.graph.functional import Call, Graph, Head, SurgeryError, has_graph, is_graph, read, why_closed
from nameplate.graph.tree import Entry, direct, require_model, walk
from nameplate.naming import names

Sites = int | Sequence[int] | None  # which calls of a shared layer, counted from 0 in the order of the graph; None: all


class Addresses:
    """The names in a model's tree, and its graphs, each read on first use.

    With `part` only a part of the model's own graph is taken, so it may be one that the constructor of a class made.
    """

    def __init__(self, model: keras.Model, *, part: bool = False) -> None:
        require_model(model)
        self.model = model
        self._taken = model if part and has_graph(model) else None
        self.entries = walk(model)
        self.names = {id(model): ""} | {id(entry.layer): entry.name for entry in self.entries}
        self._by_name: dict[str, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            self._by_name[entry.name].append(entry)
        self._graphs: dict[int, Graph] = {}
        self._holders: dict[int, list[Any]] = defaultdict(list)
        for container in [model, *(entry.layer for entry in self.entries)]:
            for child in direct(container):
                self._holders[id(child)].append(container)

    def has(self, name: str) -> bool:
        """Return whether exactly one layer has this name."""
        return len(self._by_name.get(name, [])) == 1

    def layer(self, name: str) -> Any:
        """Return the layer or operator of this name.

        Raises:
            SurgeryError: if no layer has the name, with the nearest, or if several have it.
        """
        if not isinstance(name, str):
            raise SurgeryError(f"give the qualified name of a layer, not {name!r}")
        entries = self._by_name.get(name, [])
        if len(entries) == 1:
            return entries[0].layer
        if entries:
            places = ", ".join(entry.origin for entry in entries)
            raise SurgeryError(f"{name!r} is the name of {len(entries)} layers, at {places}: rename them first")
        known = list(self._by_name)
        inside = [other for other in known if names.split(other)[1] == name]
        hint = f" It is inside: {', '.join(inside[:3])}." if inside else names.did_you_mean(name, known)
        raise SurgeryError(f"no layer {name!r} in {self.model.name!r}, which has {len(known)} layers.{hint}")

    def name(self, layer: Any) -> str:
        """Return the qualified name of a layer of the original."""
        return self.names.get(id(layer), str(layer.name))

    def graph(self, container: Any) -> Graph:
        """Return the graph of a container, the same object each time, so that edits of it are seen everywhere."""
        if id(container) not in self._graphs:
            self._graphs[id(container)] = read(container)
        return self._graphs[id(container)]

    def containers(self) -> list[Any]:
        """Return the containers whose graphs can be read, the model first."""
        every = [self.model, *(entry.layer for entry in self.entries)]
        return [layer for layer in every if is_graph(layer)]

    def holders(self, layer: Any) -> list[Any]:
        """Return the containers that hold a layer directly."""
        return self._holders[id(layer)]

    def graphs_of(self, layer: Any, *, what: str) -> list[Graph]:
        """Return the graphs in which a layer is called.

        Raises:
            SurgeryError: for a layer inside a subclassed model, whose code calls it.
        """
        subclassed = [holder for holder in self.holders(layer) if not self._is_read(holder)]
        if subclassed:
            place = repr(self.name(subclassed[0])) if self.name(subclassed[0]) else "the model itself"
            why = why_closed(subclassed[0], top=subclassed[0] is self.model)
            raise SurgeryError(f"cannot {what} {self.name(layer)!r}: it is in {place}, and {why}")
        return [self.graph(holder) for holder in self.holders(layer)]

    def sites(self, layer: Any, at: Sites, *, what: str) -> list[tuple[Graph, Call]]:
        """Return the calls of a layer that `at` selects, in the order of the graphs.

        Raises:
            SurgeryError: if there is no such call, with how many there are.
        """
        graphs = self.graphs_of(layer, what=what)
        calls = [(graph, call) for graph in graphs for call in graph.calls if call.layer is layer]
        if at is None:
            return calls
        wanted = list(at) if isinstance(at, Sequence) else [at]
        indices = [index for index in wanted if isinstance(index, int)]
        if indices != wanted or not wanted:
            raise SurgeryError(f"at={at!r} is not the index of a call, counted from 0, e.g. 0 or [0, 2]")
        absent = [index for index in indices if not 0 <= index < len(calls)]
        if absent:
            count = f"{len(calls)} times" if len(calls) != 1 else "once"
            raise SurgeryError(
                f"cannot {what} {self.name(layer)!r} at {', '.join(map(str, absent))}: it is called {count}, "
                f"and calls are counted from 0"
            )
        return [calls[index] for index in indices]

    def heads(self, layer: Any) -> list[tuple[Graph, Head]]:
        """Return the graphs that an input belongs to, with its place in each."""
        graphs = [self.graph(holder) for holder in self.holders(layer) if self._is_read(holder)]
        return [(graph, head) for graph in graphs for head in graph.heads if head.layer is layer]

    def _is_read(self, container: Any) -> bool:
        return container is self._taken or is_graph(container)

    def with_holders(self, ids: Iterable[int]) -> list[Any]:
        """Return these containers and all that contain one of them, at any depth, each once.

        Raises:
            SurgeryError: if one of them is a subclassed model, whose code creates its layers.
        """
        known = {id(self.model): self.model} | {id(entry.layer): entry.layer for entry in self.entries}
        containers: dict[int, Any] = {}
        waiting = [known[key] for key in ids]
        while waiting:
            container = waiting.pop()
            if id(container) in containers:
                continue
            if not is_graph(container):
                raise SurgeryError(f"{self.name(container)!r} is a {type(container).__name__}: {_SUBCLASSED}")
            containers[id(container)] = container
            waiting += self.holders(container)
        return list(containers.values())


_SUBCLASSED = "its code creates and calls its layers, so only replace works there, if its configuration contains them"


def is_input(layer: Any) -> bool:
    """Return whether a layer is an input layer."""
    return isinstance(layer, keras.layers.InputLayer)
