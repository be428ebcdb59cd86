"""One layer, a block or an input becomes another, in a graph as data."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import keras

from models.surgery.addresses import Addresses, is_input
from models.surgery.blocks import block_between
from models.surgery.changes import Rewritten, claim, told_kinds
from models.surgery.edits import Replace, Sites, SurgeryError, layers_of
from models.surgery.graph import Call, Graph, Value

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
