"""The calls between two layers, where they are a block: one way in, one way out."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import keras

from nameplate.graph.functional import Call, Graph, Replace, Sites, SurgeryError, Value, layers_of, values_in
from nameplate.surgery.addresses import Addresses, is_input
from nameplate.surgery.changes import Rewritten, claim, told_kinds


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


CONTEXT = ("training", "mask")  # call arguments that not every layer has, and that may be left out


def replace_in(addresses: Addresses, edit: Replace, done: Rewritten, touched: set[int]) -> None:
    """Put layers where one, a block or an input was."""
    given = layers_of(edit.layer)
    if isinstance(edit.name, tuple) and len(edit.name) != 2:
        raise SurgeryError(f"{edit.name!r}: a block is (first, last), two names")
    if isinstance(edit.name, tuple):
        _replace_block(addresses, edit.name, edit.at, given, done, touched)
        return
    layer = addresses.layer(edit.name)
    if is_input(layer):
        _replace_input(addresses, layer, given, done, touched)
        return
    every = addresses.sites(layer, None, what="replace")
    sites = addresses.sites(layer, edit.at, what="replace")
    everywhere = len(sites) == len(every)
    done.take_in(given, sites[0][0], stands_for=layer, everywhere=everywhere)
    for graph, call in sites:
        claim(call, edit.name, touched)
        call.replaced = layer
        _put(graph, call, given)
        _fit_arguments(call, layer, edit.name, done)
    if everywhere:
        done.gone.add(id(layer))
    done.containers |= {id(graph.container) for graph, _ in sites}
    where = "" if everywhere else f" at call {edit.at} of {len(every)}"
    done.notes.append((edit.name, f"{type(layer).__name__} replaced{where} by {told_kinds(given)}"))


def _put(graph: Graph, call: Call, given: Sequence[Any]) -> None:
    """Let a call be one of the given layers, with the rest of a row behind it."""
    outputs = call.outputs
    place = graph.calls.index(call)
    call.layer, call.took = given[0], None
    for layer in given[1:]:
        between = Value()
        call.outputs = [between]
        call = Call(layer, (between,), {}, outputs, gave=call.gave)
        place += 1
        graph.calls.insert(place, call)


def _fit_arguments(call: Call, old: Any, name: str, done: Rewritten) -> None:
    """Leave out `training` and `mask` where the new layer has no such argument; an operator's tensors become one list
    where it takes one argument, and its constants go with it.
    """
    taken = inspect.signature(call.layer.call).parameters
    if not isinstance(old, keras.Layer):
        places = [
            each for each in taken.values() if each.kind is each.POSITIONAL_OR_KEYWORD and each.default is each.empty
        ]
        tensors = call.inputs()
        call.args = (tensors,) if len(tensors) > 1 and len(places) == 1 else tuple(tensors)
        call.kwargs = {}
    if any(each.kind is each.VAR_KEYWORD for each in taken.values()):
        return
    for key in [key for key in call.kwargs if key not in taken]:
        if key not in CONTEXT:
            kind = type(call.layer).__name__
            raise SurgeryError(f"{name!r} is called with {key}=, which a {kind} does not take; give a layer that does")
        if call.kwargs.pop(key) is not None:
            done.notes.append((name, f"was called with {key}=, which a {type(call.layer).__name__} does not take"))


def _replace_input(addresses: Addresses, layer: Any, given: Sequence[Any], done: Rewritten, touched: set[int]) -> None:
    if len(given) != 1 or not is_input(given[0]):
        raise SurgeryError(
            f"{addresses.name(layer)!r} is an input: give keras.Input(...), or insert the layer after it instead"
        )
    new, found = given[0], addresses.heads(layer)
    done.take_in(given, found[0][0], stands_for=layer)
    for graph, head in found:
        claim(head, addresses.name(layer), touched)
        head.layer, head.spec = new, new.output
        done.containers.add(id(graph.container))
    done.gone.add(id(layer))
    told = f"input {tuple(layer.output.shape)} {layer.dtype} became {tuple(new.output.shape)} {new.dtype}"
    done.notes.append((addresses.name(layer), told))


def _replace_block(
    addresses: Addresses,
    ends: tuple[str, str],
    at: Sites,
    given: Sequence[Any],
    done: Rewritten,
    touched: set[int],
) -> None:
    first, last = (addresses.layer(name) for name in ends)
    graph, inside = block_between(addresses, first, last, ends, at=at)
    for call in inside:
        claim(call, addresses.name(call.layer), touched)
    head, tail = inside[0], inside[-1]
    tail.args, tail.kwargs = head.args, {}
    tail.replaced = last
    gone = {id(call) for call in inside[:-1]}
    graph.calls = [call for call in graph.calls if id(call) not in gone]
    done.take_in(
        given,
        graph,
        stands_for=last,
        everywhere=not any(call.layer is last for call in graph.calls if call is not tail),
    )
    _put(graph, tail, given)
    done.containers.add(id(graph.container))
    done.notes.append((f"{ends[0]} to {ends[1]}", f"{len(inside)} layers replaced by {told_kinds(given)}"))
