"""The calls between two layers, where they are a block: one way in, one way out."""

from __future__ import annotations

from typing import Any

from models.surgery.addresses import Addresses, is_input
from models.surgery.edits import Sites, SurgeryError
from models.surgery.graph import Call, Graph, Value, values_in


def block_between(
    addresses: Addresses, first: Any, last: Any, told: tuple[str, str], *, at: Sites
) -> tuple[Graph, list[Call]]:
    """Return the graph and the calls from one layer to another, side branches included, in order.

    Raises:
        SurgeryError: when they are not a block: something else goes in, something in the middle goes out, or `last`
        does not follow `first`.
    """
    graph, start, end = _ends(addresses, first, last, told, at=at)
    makers = {id(value): call for call in graph.calls for value in call.outputs}
    before = _ancestors(start, makers)
    door = {id(value) for value in start.inputs()}
    inside, entering = _between(end, makers, before, door)
    if id(start) not in inside:
        raise SurgeryError(f"{told[1]!r} does not follow {told[0]!r}: no block from the one to the other")
    calls = [call for call in graph.calls if id(call) in inside]
    problems = [f"it also takes what {_named(value, makers, graph)!r} gives" for value in entering]
    own = {id(value): call for call in calls for value in call.outputs if call is not end}
    takers = [(value, call) for call in graph.calls if id(call) not in inside for value in call.inputs()]
    problems += [
        f"{str(own[id(value)].layer.name)!r} in it also goes to {str(call.layer.name)!r}"
        for value, call in takers
        if id(value) in own
    ]
    leaving = [own[id(value)] for value in values_in(graph.outputs) if id(value) in own]
    problems += [f"{str(call.layer.name)!r} in it is also an output" for call in leaving]
    if problems:
        raise SurgeryError(f"{told[0]!r} to {told[1]!r} is no block: {'; '.join(dict.fromkeys(problems))}")
    # What is called first decides which arguments come in, and what is called last which values go out.
    return graph, [start, *(call for call in calls if call is not start and call is not end), end]


def _ends(addresses: Addresses, first: Any, last: Any, told: tuple[str, str], *, at: Sites) -> tuple[Graph, Call, Call]:
    if is_input(first) or is_input(last) or first is last:
        raise SurgeryError(
            f"a block goes from one layer to a later one, and has no input in it: {told[0]!r}, {told[1]!r}"
        )
    ends = []
    for name, layer in zip(told, (first, last), strict=True):
        sites = addresses.sites(layer, at, what="replace")
        if len(sites) != 1:
            raise SurgeryError(f"{name!r} is called {len(sites)} times; say which block with at=0, 1, ...")
        ends.append(sites[0])
    (graph, start), (other, end) = ends
    if graph is not other:
        raise SurgeryError(f"{told[0]!r} and {told[1]!r} lie in different containers: a block lies in one")
    return graph, start, end


def _ancestors(call: Call, makers: dict[int, Call]) -> set[int]:
    found: set[int] = set()
    waiting = [call]
    while waiting:
        for value in waiting.pop().inputs():
            maker = makers.get(id(value))
            if maker is not None and id(maker) not in found:
                found.add(id(maker))
                waiting.append(maker)
    return found


def _between(end: Call, makers: dict[int, Call], before: set[int], door: set[int]) -> tuple[set[int], list[Value]]:
    """Return ids of the calls that lead to `end` and do not lie before the block, and what else they take."""
    inside = {id(end)}
    entering: list[Value] = []
    waiting = [end]
    while waiting:
        for value in waiting.pop().inputs():
            if id(value) in door:
                continue
            maker = makers.get(id(value))
            if maker is None or id(maker) in before:
                entering.append(value)
            elif id(maker) not in inside:
                inside.add(id(maker))
                waiting.append(maker)
    return inside, entering


def _named(value: Value, makers: dict[int, Call], graph: Graph) -> str:
    if id(value) in makers:
        return str(makers[id(value)].layer.name)
    return next((str(head.layer.name) for head in graph.heads if head.value is value), "an input")
