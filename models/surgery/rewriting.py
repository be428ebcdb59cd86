"""What each edit does to a graph as data; nothing is built here.

All names mean the model as it was. What stands behind a layer gives the value that others take, and the layer gets a
value of its own, so that an edit costs what it touches.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from models.surgery.addresses import Addresses, is_input
from models.surgery.blocks import block_between
from models.surgery.edits import Edit, Insert, Remove, Replace, SurgeryError, layers_of
from models.surgery.graph import Call, Graph, Head, Value

CONTEXT = ("training", "mask")  # call arguments that not every layer has, and that may be left out


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


def rewrite(addresses: Addresses, edits: Sequence[Edit]) -> Rewritten:
    """Do the edits to the graphs of `addresses`.

    Raises:
        SurgeryError: with every edit that cannot be done.
    """
    done = Rewritten()
    touched: set[int] = set()
    problems: list[str] = []
    order = {Insert: 0, Replace: 1, Remove: 2}
    for edit in sorted(edits, key=lambda each: order[type(each)]):
        try:
            if isinstance(edit, Insert):
                _insert(addresses, edit, done)
            elif isinstance(edit, Replace):
                _replace(addresses, edit, done, touched)
            else:
                _remove(addresses, edit, done, touched)
        except SurgeryError as error:
            problems.append(str(error))
    if problems:
        raise SurgeryError("\n".join(["nothing was edited:", *(f"  {problem}" for problem in problems)]))
    for graph, changes in done.substitutes.values():
        graph.substitute(changes)
    return done


# ---- replace ----------------------------------------------------------------------------------------------------


def _replace(addresses: Addresses, edit: Replace, done: Rewritten, touched: set[int]) -> None:
    given = layers_of(edit.layer)
    if not isinstance(edit.name, str):
        _replace_block(addresses, edit, given, done, touched)
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
        _claim(call, edit.name, touched)
        call.replaced = layer
        _put(graph, call, given)
        _fit_arguments(call, layer, edit.name, done)
    if everywhere:
        done.gone.add(id(layer))
    done.containers |= {id(graph.container) for graph, _ in sites}
    where = "" if everywhere else f" at call {edit.at} of {len(every)}"
    done.notes.append((edit.name, f"{type(layer).__name__} replaced{where} by {_told(given)}"))


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
        _claim(head, addresses.name(layer), touched)
        head.layer, head.spec = new, new.output
        done.containers.add(id(graph.container))
    done.gone.add(id(layer))
    told = f"input {tuple(layer.output.shape)} {layer.dtype} became {tuple(new.output.shape)} {new.dtype}"
    done.notes.append((addresses.name(layer), told))


def _replace_block(
    addresses: Addresses, edit: Replace, given: Sequence[Any], done: Rewritten, touched: set[int]
) -> None:
    first, last = (addresses.layer(name) for name in edit.name)
    graph, inside = block_between(addresses, first, last, edit.name, at=edit.at)
    for call in inside:
        _claim(call, addresses.name(call.layer), touched)
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
    done.notes.append((f"{edit.name[0]} to {edit.name[1]}", f"{len(inside)} layers replaced by {_told(given)}"))


# ---- insert -----------------------------------------------------------------------------------------------------


def _insert(addresses: Addresses, edit: Insert, done: Rewritten) -> None:
    given = layers_of(edit.layer)
    if edit.after is None and edit.before is None:
        raise SurgeryError("insert needs after=NAME, before=NAME, or both for the edge between them")
    if any(is_input(each) for each in given):
        raise SurgeryError("an input cannot be inserted; replace the one that is there")
    put = _insert_after if edit.before is None else _insert_before
    graphs = put(addresses, edit, given)
    done.take_in(given, graphs[0])
    done.containers |= {id(graph.container) for graph in graphs}
    where = " and ".join(f"{word} {name}" for word, name in [("after", edit.after), ("before", edit.before)] if name)
    done.notes.append((where, f"inserted {_told(given)}"))


def _insert_after(addresses: Addresses, edit: Insert, given: Sequence[Any]) -> list[Graph]:
    assert edit.after is not None
    layer = addresses.layer(edit.after)
    if is_input(layer):
        found = addresses.heads(layer)
        for graph, head in found:
            head.value, own = Value(head.spec), head.value
            graph.calls[:0] = _row(given, head.value, own)
            _keep_inputs(graph, own, head)
        return [graph for graph, _ in found]
    sites = addresses.sites(layer, edit.at, what="insert after")
    for graph, call in sites:
        place = _which_output(edit, call)
        own, call.outputs[place] = call.outputs[place], Value()
        index = graph.calls.index(call) + 1
        graph.calls[index:index] = _row(given, call.outputs[place], own)
    return [graph for graph, _ in sites]


def _keep_inputs(graph: Graph, own: Value, head: Head) -> None:
    graph.inputs = keras.tree.map_structure(lambda leaf: head.value if leaf is own else leaf, graph.inputs)


def _which_output(edit: Insert, call: Call) -> int:
    if edit.output is None and len(call.outputs) > 1:
        raise SurgeryError(f"{edit.after!r} gives {len(call.outputs)} tensors: say which with output=0, 1, ...")
    place = edit.output or 0
    if not 0 <= place < len(call.outputs):
        raise SurgeryError(f"{edit.after!r} gives {len(call.outputs)} tensors; there is no output={place}")
    return place


def _insert_before(addresses: Addresses, edit: Insert, given: Sequence[Any]) -> list[Graph]:
    assert edit.before is not None
    layer = addresses.layer(edit.before)
    if is_input(layer):
        raise SurgeryError(f"nothing can stand before the input {edit.before!r}; insert after it")
    sites = addresses.sites(layer, edit.at, what="insert before")
    for graph, call in sites:
        value = _which_input(addresses, edit, graph, call)
        new = Value()
        index = graph.calls.index(call)
        call.rewire({id(value): new})
        graph.calls[index:index] = _row(given, value, new)
    return [graph for graph, _ in sites]


def _which_input(addresses: Addresses, edit: Insert, graph: Graph, call: Call) -> Value:
    taken = list({id(value): value for value in call.inputs()}.values())
    if edit.after is not None:
        source = addresses.layer(edit.after)
        from_it = [value for value in taken if value in _given_by(graph, source)]
        if not from_it:
            raise SurgeryError(f"{edit.before!r} takes nothing from {edit.after!r}; {_sources(graph, taken)}")
        taken = [from_it[edit.output]] if edit.output is not None and edit.output < len(from_it) else from_it
    if len(taken) != 1:
        raise SurgeryError(
            f"{edit.before!r} takes {len(taken)} tensors: {_sources(graph, taken)}; say which edge with after=NAME"
            f"{' and output=' if edit.after else ''}"
        )
    return taken[0]


def _row(given: Sequence[Any], value: Value, last: Value) -> list[Call]:
    """Return the calls of layers one behind the other, from a value to a value."""
    calls = []
    for place, layer in enumerate(given):
        output = last if place == len(given) - 1 else Value()
        calls.append(Call(layer, (value,), {}, [output]))
        value = output
    return calls


# ---- remove -----------------------------------------------------------------------------------------------------


def _remove(addresses: Addresses, edit: Remove, done: Rewritten, touched: set[int]) -> None:
    layer = addresses.layer(edit.name)
    if is_input(layer):
        raise SurgeryError(f"{edit.name!r} is an input and cannot be removed; replace it, or extract from behind it")
    sites = addresses.sites(layer, edit.at, what="remove")
    for graph, call in sites:
        _claim(call, edit.name, touched)
        value = _which_stays(addresses, edit, graph, call)
        _, changes = done.substitutes.setdefault(id(graph), (graph, {}))
        changes.update({id(output): value for output in call.outputs})
        graph.calls = [each for each in graph.calls if each is not call]
    if not addresses.sites(layer, None, what="remove"):
        done.gone.add(id(layer))
    done.containers |= {id(graph.container) for graph, _ in sites}
    where = "" if edit.at is None else f" at call {edit.at}"
    done.notes.append((edit.name, f"{type(layer).__name__} removed{where}"))


def _which_stays(addresses: Addresses, edit: Remove, graph: Graph, call: Call) -> Value:
    taken = list({id(value): value for value in call.inputs()}.values())
    if edit.keep is not None:
        source = addresses.layer(edit.keep)
        taken = [value for value in taken if value in _given_by(graph, source)] or taken
    if len(taken) != 1:
        raise SurgeryError(
            f"{edit.name!r} takes {len(taken)} tensors: {_sources(graph, taken)}; say which stays: keep="
        )
    if len(call.outputs) != 1:
        raise SurgeryError(f"{edit.name!r} gives {len(call.outputs)} tensors; replace it by what gives as many")
    return taken[0]


# ---- shared -----------------------------------------------------------------------------------------------------


def _claim(call: Call | Head, name: str, touched: set[int]) -> None:
    if id(call) in touched:
        raise SurgeryError(f"{name!r} is replaced or removed twice in one pass")
    touched.add(id(call))


def _given_by(graph: Graph, layer: Any) -> list[Value]:
    """Return all that a layer gives, as it was before what is inserted behind it."""
    found = [value for call in graph.calls if call.layer is layer for value in call.outputs]
    return found + [head.value for head in graph.heads if head.layer is layer]


def _sources(graph: Graph, values: Sequence[Value]) -> str:
    makers = {id(value): call.layer.name for call in graph.calls for value in call.outputs}
    makers |= {id(head.value): head.layer.name for head in graph.heads if head.layer is not None}
    return "it takes from " + ", ".join(str(makers.get(id(value), "?")) for value in values)


def _told(given: Sequence[Any]) -> str:
    return ", ".join(type(each).__name__ for each in given)
