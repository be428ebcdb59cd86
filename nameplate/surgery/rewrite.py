"""Edits applied to graphs as data: removals and insertions here, replacements in `replacement`."""

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
    class_names,
    layers_of,
    output_indices,
    sources,
)
from nameplate.surgery.replacement import replace_in


def remove_in(addresses: Addresses, edit: Remove, done: EditLog, touched: set[int]) -> None:
    """Remove a layer at the selected calls."""
    layer = addresses.layer(edit.name)
    if is_input(layer):
        raise SurgeryError(f"{edit.name!r} is an input and cannot be removed; replace it, or extract the part after it")
    if id(layer) in done.gone:
        raise SurgeryError(f"{edit.name!r} is replaced or removed twice in one pass")
    sites = addresses.sites(layer, edit.at, what="remove")
    for graph, call in sites:
        claim(call, edit.name, touched)
        value = _remaining_input(addresses, edit, graph, call)
        _, substitutes = done.substitutes.setdefault(id(graph), (graph, {}))
        substitutes.update({id(output): value for output in call.outputs})
        graph.calls = [other for other in graph.calls if other is not call]
    if not addresses.sites(layer, None, what="remove"):
        done.gone.add(id(layer))
    done.containers |= {id(graph.container) for graph, _ in sites}
    where = "" if edit.at is None else f" at call {edit.at}"
    done.notes.append((edit.name, f"{type(layer).__name__} removed{where}"))


def _remaining_input(addresses: Addresses, edit: Remove, graph: Graph, call: Call) -> Value:
    """Return the input of a removed call that its consumers use instead of its output."""
    taken = list({id(value): value for value in call.inputs()}.values())
    if edit.keep is not None:
        of_kept = output_indices(graph, addresses.layer(edit.keep))
        taken = [value for value in taken if id(value) in of_kept] or taken
    if len(taken) != 1:
        raise SurgeryError(f"{edit.name!r} takes {len(taken)} tensors, {sources(graph, taken)}; keep one with keep=")
    if len(call.outputs) != 1:
        raise SurgeryError(f"{edit.name!r} has {len(call.outputs)} outputs; replace it with a layer that has as many")
    return taken[0]


def insert_in(addresses: Addresses, edit: Insert, done: EditLog) -> None:
    """Put layers after, before or between others."""
    given = layers_of(edit.layer)
    if edit.after is None and edit.before is None:
        raise SurgeryError("insert needs after=NAME, before=NAME, or both for the edge between them")
    if edit.output is not None and not isinstance(edit.output, int):
        raise SurgeryError(f"output={edit.output!r} is not the index of an output of `after`, counted from 0")
    if edit.output is not None and edit.after is None:
        raise SurgeryError(f"output={edit.output} selects an output of `after`: give after=NAME too")
    if any(is_input(layer) for layer in given):
        raise SurgeryError("an input cannot be inserted; replace the existing one")
    put = _insert_after if edit.before is None else _insert_before
    graphs = put(addresses, edit, given)
    done.add_newcomers(given, graphs[0])
    done.containers |= {id(graph.container) for graph in graphs}
    where = " and ".join(f"{word} {name}" for word, name in [("after", edit.after), ("before", edit.before)] if name)
    done.notes.append((where, f"inserted {class_names(given)}"))


def _insert_after(addresses: Addresses, edit: Insert, given: Sequence[Any]) -> list[Graph]:
    assert edit.after is not None
    layer = addresses.layer(edit.after)
    if is_input(layer):
        if edit.output:
            raise SurgeryError(f"{edit.after!r} has one output; there is no output={edit.output}")
        heads = addresses.heads(layer)
        for graph, head in heads:
            head.value, own = Value(head.spec), head.value
            graph.calls[:0] = _chain(given, head.value, own)
            _replace_input_value(graph, own, head)
        return [graph for graph, _ in heads]
    sites = addresses.sites(layer, edit.at, what="insert after")
    for graph, call in sites:
        place = _output_index(edit, call)
        own, call.outputs[place] = call.outputs[place], Value()
        index = graph.calls.index(call) + 1
        graph.calls[index:index] = _chain(given, call.outputs[place], own)
    return [graph for graph, _ in sites]


def _replace_input_value(graph: Graph, own: Value, head: Head) -> None:
    graph.inputs = keras.tree.map_structure(lambda leaf: head.value if leaf is own else leaf, graph.inputs)


def _output_index(edit: Insert, call: Call) -> int:
    if edit.output is None and len(call.outputs) > 1:
        raise SurgeryError(f"{edit.after!r} has {len(call.outputs)} outputs: say which with output=0, 1, ...")
    place = edit.output or 0
    if not 0 <= place < len(call.outputs):
        raise SurgeryError(f"{edit.after!r} has {len(call.outputs)} outputs; there is no output={place}")
    return place


def _insert_before(addresses: Addresses, edit: Insert, given: Sequence[Any]) -> list[Graph]:
    assert edit.before is not None
    layer = addresses.layer(edit.before)
    if is_input(layer):
        raise SurgeryError(f"nothing can be inserted before the input {edit.before!r}; insert after it")
    sites = addresses.sites(layer, edit.at, what="insert before")
    for graph, call in sites:
        value = _input_to_cut(addresses, edit, graph, call)
        new = Value()
        index = graph.calls.index(call)
        call.rewire({id(value): new})
        graph.calls[index:index] = _chain(given, value, new)
    return [graph for graph, _ in sites]


def _input_to_cut(addresses: Addresses, edit: Insert, graph: Graph, call: Call) -> Value:
    taken = list({id(value): value for value in call.inputs()}.values())
    if edit.after is not None:
        source = addresses.layer(edit.after)
        places = output_indices(graph, source)
        from_it = [value for value in taken if id(value) in places]
        if not from_it:
            raise SurgeryError(f"{edit.before!r} takes nothing from {edit.after!r}, only {sources(graph, taken)}")
        taken = from_it if edit.output is None else [_at_output(edit, places, from_it)]
    if len(taken) != 1:
        raise SurgeryError(
            f"{edit.before!r} takes {len(taken)} tensors, {sources(graph, taken)}; say which edge with after=NAME"
            f"{' and output=' if edit.after else ''}"
        )
    return taken[0]


def _at_output(edit: Insert, places: Mapping[int, int], from_it: Sequence[Value]) -> Value:
    """Return the value among those taken that is the selected output of `after`."""
    selected = [value for value in from_it if places[id(value)] == edit.output]
    if len(selected) == 1:
        return selected[0]
    if selected:
        raise SurgeryError(
            f"{edit.before!r} takes output={edit.output} of {len(selected)} calls of {edit.after!r}: insert after one "
            "call of it with at="
        )
    takes = ", ".join(str(places[id(value)]) for value in from_it)
    raise SurgeryError(f"{edit.before!r} takes output={takes} of {edit.after!r}, not output={edit.output}")


def _chain(given: Sequence[Any], value: Value, last: Value) -> list[Call]:
    """Return the calls of layers in a chain from one value to another."""
    calls = []
    for place, layer in enumerate(given):
        output = last if place == len(given) - 1 else Value()
        calls.append(Call(layer, (value,), {}, [output]))
        value = output
    return calls


def rewrite(addresses: Addresses, edits: Sequence[Edit]) -> EditLog:
    """Apply the edits to the graphs of `addresses`.

    Raises:
        SurgeryError: with every edit that cannot be made.
    """
    done = EditLog()
    touched: set[int] = set()
    problems: list[str] = []
    order = {Insert: 0, Replace: 1, Remove: 2}
    for edit in sorted(edits, key=lambda edit: order[type(edit)]):
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
