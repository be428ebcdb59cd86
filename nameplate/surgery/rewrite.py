"""A layer less: what used its output uses its input, in a graph as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from nameplate.graph.functional import Call, Graph, Head, SurgeryError, Value
from nameplate.surgery.addresses import Addresses, is_input
from nameplate.surgery.changes import (
    Edit,
    EditLog,
    Insert,
    Remove,
    Replace,
    claim,
    given_by,
    layers_of,
    sources,
    told_kinds,
)
from nameplate.surgery.replacement import replace_in


def remove_in(addresses: Addresses, edit: Remove, done: EditLog, touched: set[int]) -> None:
    """Take a layer out at the calls that are meant."""
    layer = addresses.layer(edit.name)
    if is_input(layer):
        raise SurgeryError(f"{edit.name!r} is an input and cannot be removed; replace it, or extract from behind it")
    if id(layer) in done.gone:
        raise SurgeryError(f"{edit.name!r} is replaced or removed twice in one pass")
    sites = addresses.sites(layer, edit.at, what="remove")
    for graph, call in sites:
        claim(call, edit.name, touched)
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
        places = given_by(graph, addresses.layer(edit.keep))
        taken = [value for value in taken if id(value) in places] or taken
    if len(taken) != 1:
        raise SurgeryError(f"{edit.name!r} takes {len(taken)} tensors: {sources(graph, taken)}; say which stays: keep=")
    if len(call.outputs) != 1:
        raise SurgeryError(f"{edit.name!r} gives {len(call.outputs)} tensors; replace it by what gives as many")
    return taken[0]


def insert_in(addresses: Addresses, edit: Insert, done: EditLog) -> None:
    """Put layers behind, in front of, or between others."""
    given = layers_of(edit.layer)
    if edit.after is None and edit.before is None:
        raise SurgeryError("insert needs after=NAME, before=NAME, or both for the edge between them")
    if edit.output is not None and not isinstance(edit.output, int):
        raise SurgeryError(f"output={edit.output!r}: which of the tensors that `after` gives, counted from 0")
    if edit.output is not None and edit.after is None:
        raise SurgeryError(f"output={edit.output} is which of several tensors `after` gives: give after=NAME too")
    if any(is_input(each) for each in given):
        raise SurgeryError("an input cannot be inserted; replace the one that is there")
    put = _insert_after if edit.before is None else _insert_before
    graphs = put(addresses, edit, given)
    done.take_in(given, graphs[0])
    done.containers |= {id(graph.container) for graph in graphs}
    where = " and ".join(f"{word} {name}" for word, name in [("after", edit.after), ("before", edit.before)] if name)
    done.notes.append((where, f"inserted {told_kinds(given)}"))


def _insert_after(addresses: Addresses, edit: Insert, given: Sequence[Any]) -> list[Graph]:
    assert edit.after is not None
    layer = addresses.layer(edit.after)
    if is_input(layer):
        if edit.output:
            raise SurgeryError(f"{edit.after!r} gives one tensor; there is no output={edit.output}")
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
        places = given_by(graph, source)
        from_it = [value for value in taken if id(value) in places]
        if not from_it:
            raise SurgeryError(f"{edit.before!r} takes nothing from {edit.after!r}; {sources(graph, taken)}")
        taken = from_it if edit.output is None else [_nth_output(edit, places, from_it)]
    if len(taken) != 1:
        raise SurgeryError(
            f"{edit.before!r} takes {len(taken)} tensors: {sources(graph, taken)}; say which edge with after=NAME"
            f"{' and output=' if edit.after else ''}"
        )
    return taken[0]


def _nth_output(edit: Insert, places: Mapping[int, int], from_it: Sequence[Value]) -> Value:
    """Return which of the taken values is the k-th that `after` gives, counted as the layer counts them."""
    found = [value for value in from_it if places[id(value)] == edit.output]
    if len(found) == 1:
        return found[0]
    if found:
        raise SurgeryError(
            f"{edit.before!r} takes output={edit.output} of {len(found)} calls of {edit.after!r}: insert after one "
            "call of it with at="
        )
    takes = ", ".join(str(places[id(value)]) for value in from_it)
    raise SurgeryError(f"{edit.before!r} takes output={takes} of {edit.after!r}, not output={edit.output}")


def _row(given: Sequence[Any], value: Value, last: Value) -> list[Call]:
    """Return the calls of layers one behind the other, from a value to a value."""
    calls = []
    for place, layer in enumerate(given):
        output = last if place == len(given) - 1 else Value()
        calls.append(Call(layer, (value,), {}, [output]))
        value = output
    return calls


def rewrite(addresses: Addresses, edits: Sequence[Edit]) -> EditLog:
    """Do the edits to the graphs of `addresses`.

    Raises:
        SurgeryError: with every edit that cannot be done.
    """
    done = EditLog()
    touched: set[int] = set()
    problems: list[str] = []
    order = {Insert: 0, Replace: 1, Remove: 2}
    for edit in sorted(edits, key=lambda each: order[type(each)]):
        try:
            if isinstance(edit, Insert):
                insert_in(addresses, edit, done)
            elif isinstance(edit, Replace):
                replace_in(addresses, edit, done, touched)
            else:
                remove_in(addresses, edit, done, touched)
        except SurgeryError as error:
            problems.append(str(error))
    if problems:
        raise SurgeryError("\n".join(["nothing was edited:", *(f"  {problem}" for problem in problems)]))
    for graph, changes in done.substitutes.values():
        graph.substitute(changes)
    return done
