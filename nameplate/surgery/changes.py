"""A graph that an edit made is looked at before anything is built: every value is made once, before it is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nameplate.graph.functional import Call, Graph, Head, SurgeryError, Value, values_in


def lint(graph: Graph) -> None:
    """Look at one graph.

    Raises:
        SurgeryError: with every call that takes what nothing before it gives, and every value that two calls give.
    """
    problems = []
    known: dict[int, str] = {}
    for head in graph.heads:
        known[id(head.value)] = "an input"
    for call in graph.calls:
        name = str(call.layer.name)
        problems += [f"{name!r} takes what nothing before it gives" for each in call.inputs() if id(each) not in known]
        problems += [
            f"{name!r} gives what {known[id(each)]} gives already" for each in call.outputs if id(each) in known
        ]
        known.update((id(each), repr(name)) for each in call.outputs)
    problems += ["an output is given by nothing" for each in values_in(graph.outputs) if id(each) not in known]
    if problems:
        lines = "\n".join(f"  {each}" for each in dict.fromkeys(problems))
        raise SurgeryError(f"the edited graph of {graph.name!r} does not hold together; nothing was built:\n{lines}")


@dataclass(eq=False)
class Newcomer:
    """A layer that an edit gave, and what its name is to be where it has none of its own."""

    layer: Any
    container: Any  # in which it comes to lie
    stands_for: Any = None  # the layer that was there
    alone: bool = True  # whether it stands there alone, not in a row of several
    everywhere: bool = True  # whether nothing is left of what it stands for


@dataclass
class Rewritten:
    """What the edits leave to the steps after them."""

    newcomers: dict[int, Newcomer] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)  # ids of layers that no edit left a call of
    containers: set[int] = field(default_factory=set)  # ids of the containers that change
    substitutes: dict[int, tuple[Graph, dict[int, Value]]] = field(default_factory=dict)
    notes: list[tuple[str, str]] = field(default_factory=list)  # (qualified name, what happened)
    aloud: list[tuple[str, str]] = field(default_factory=list)  # what nobody may overlook

    def take_in(self, given: Sequence[Any], graph: Graph, **told: Any) -> None:
        """Take note of layers that go into a graph, in a row."""
        for layer in given:
            if id(layer) in self.newcomers:
                raise SurgeryError(
                    f"{layer.name!r} was given twice: one layer in two places would share its weights; give two layers"
                )
            self.newcomers[id(layer)] = Newcomer(layer, graph.container, alone=len(given) == 1, **told)


def claim(call: Call | Head, name: str, touched: set[int]) -> None:
    """Take note of what an edit changes; nothing is replaced or removed twice."""
    if id(call) in touched:
        raise SurgeryError(f"{name!r} is replaced or removed twice in one pass")
    touched.add(id(call))


def given_by(graph: Graph, layer: Any) -> dict[int, int]:
    """Return which output of its layer each value is, as it was before what is inserted behind it: `{id: place}`."""
    calls = [call for call in graph.calls if call.layer is layer]
    found = {id(value): place for call in calls for place, value in enumerate(call.given or call.outputs)}
    return found | {id(head.given or head.value): 0 for head in graph.heads if head.layer is layer}


def sources(graph: Graph, values: Sequence[Value]) -> str:
    """Say which layers give these values."""
    makers = {id(value): call.layer.name for call in graph.calls for value in call.outputs}
    makers |= {id(head.value): head.layer.name for head in graph.heads if head.layer is not None}
    return "it takes from " + ", ".join(str(makers.get(id(value), "?")) for value in values)


def told_kinds(given: Sequence[Any]) -> str:
    """Return the classes of layers, in words."""
    return ", ".join(type(each).__name__ for each in given)
