"""Which layer, in which graphs, a qualified name means."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import keras

from nameplate.graph.functional import Call, Graph, Head, SurgeryError, is_graph, read
from nameplate.graph.tree import Entry, direct, require_model, walk
from nameplate.naming import names

Sites = int | Sequence[int] | None  # which calls of a shared layer, counted from 0 in the order of the graph; None: all


class Addresses:
    """The names of a model's tree, and its graphs, each read when it is first asked for."""

    def __init__(self, model: keras.Model) -> None:
        require_model(model)
        self.model = model
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
        """Tell whether exactly one layer has this name."""
        return len(self._by_name.get(name, [])) == 1

    def layer(self, name: str) -> Any:
        """Return the layer or operator of this name.

        Raises:
            SurgeryError: for a name that nothing has, with the nearest, or that several have.
        """
        if not isinstance(name, str):
            raise SurgeryError(f"a layer is meant by its qualified name, not by {name!r}")
        found = self._by_name.get(name, [])
        if len(found) == 1:
            return found[0].layer
        if found:
            places = ", ".join(entry.origin for entry in found)
            raise SurgeryError(f"{name!r} is the name of {len(found)} layers, at {places}: rename them first")
        known = list(self._by_name)
        inside = [other for other in known if names.split(other)[1] == name]
        hint = f" It is inside: {', '.join(inside[:3])}." if inside else names.did_you_mean(name, known)
        raise SurgeryError(f"no layer {name!r} in {self.model.name!r}, which has {len(known)} layers.{hint}")

    def name(self, layer: Any) -> str:
        """Return the qualified name of a layer of the original."""
        return self.names.get(id(layer), str(layer.name))

    def graph(self, container: Any) -> Graph:
        """Return the graph of a container; edits of it are seen by all who ask."""
        if id(container) not in self._graphs:
            self._graphs[id(container)] = read(container)
        return self._graphs[id(container)]

    def containers(self) -> list[Any]:
        """Return the model and every container in it that can be read."""
        every = [self.model, *(entry.layer for entry in self.entries)]
        return [each for each in every if is_graph(each)]

    def holders(self, layer: Any) -> list[Any]:
        """Return the containers in which a layer lies directly."""
        return self._holders[id(layer)]

    def graphs_of(self, layer: Any, *, what: str) -> list[Graph]:
        """Return the graphs in which a layer is called.

        Raises:
            SurgeryError: for what lies inside a class, whose code calls it.
        """
        closed = [holder for holder in self.holders(layer) if not is_graph(holder)]
        if closed:
            kind = type(closed[0]).__name__
            raise SurgeryError(
                f"cannot {what} {self.name(layer)!r}: it lies in {self.name(closed[0]) or 'the model'!r}, and the code "
                f"of {kind} calls it. Only replace works there, where the configuration of {kind} holds the layer"
            )
        return [self.graph(holder) for holder in self.holders(layer)]

    def sites(self, layer: Any, at: Sites, *, what: str) -> list[tuple[Graph, Call]]:
        """Return the calls of a layer that are meant, in the order of the graphs.

        Raises:
            SurgeryError: when there is no such call, with how many there are.
        """
        graphs = self.graphs_of(layer, what=what)
        found = [(graph, call) for graph in graphs for call in graph.calls if call.layer is layer]
        if at is None:
            return found
        asked = list(at) if isinstance(at, Sequence) else [at]
        wanted = [each for each in asked if isinstance(each, int)]
        if wanted != asked:
            raise SurgeryError(f"at={at!r}: which calls, counted from 0, e.g. 0 or [0, 2]")
        absent = [each for each in wanted if not 0 <= each < len(found)]
        if absent:
            count = f"{len(found)} times" if len(found) != 1 else "once"
            raise SurgeryError(
                f"cannot {what} {self.name(layer)!r} at {', '.join(map(str, absent))}: it is called {count}, "
                f"and calls are counted from 0"
            )
        return [found[each] for each in wanted]

    def heads(self, layer: Any) -> list[tuple[Graph, Head]]:
        """Return where an input stands."""
        graphs = [self.graph(holder) for holder in self.holders(layer) if is_graph(holder)]
        return [(graph, head) for graph in graphs for head in graph.heads if head.layer is layer]

    def with_holders(self, ids: Iterable[int]) -> list[Any]:
        """Return these containers and all that hold one of them, at any depth, each once.

        Raises:
            SurgeryError: when one of them is a class, whose code makes what is in it.
        """
        known = {id(self.model): self.model} | {id(entry.layer): entry.layer for entry in self.entries}
        found: dict[int, Any] = {}
        waiting = [known[each] for each in ids]
        while waiting:
            container = waiting.pop()
            if id(container) in found:
                continue
            if not is_graph(container):
                raise SurgeryError(f"{self.name(container)!r} is a {type(container).__name__}: {_CLOSED}")
            found[id(container)] = container
            waiting += self.holders(container)
        return list(found.values())


_CLOSED = "its code makes and calls what is in it, so that only replace works there, where its configuration holds it"


def is_input(layer: Any) -> bool:
    """Tell whether a layer is an input."""
    return isinstance(layer, keras.layers.InputLayer)
