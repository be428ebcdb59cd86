"""Flatten: a model without containers, every layer of a nested graph at the top under its qualified name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import tree

from nameplate.arguments import checked
from nameplate.graph import keras_private
from nameplate.graph.functional import Call, Graph, Head, SurgeryError, Value, adds_code, is_graph, read, values_in
from nameplate.graph.global_state import collector_paused
from nameplate.graph.tree import require_model
from nameplate.naming import names
from nameplate.surgery.addresses import Addresses
from nameplate.surgery.rebuild import Blueprint, build
from nameplate.surgery.verification import EditLine, EditReport, Listener, verify_edit


@checked
@collector_paused()
def flatten(
    model: keras.Model, *, separator: str = ".", verify: bool = True, report: Listener | None = None
) -> keras.Model:
    """Return an uncompiled copy without nested graphs: `backbone/stem` becomes `backbone.stem`, with its weights.

    Layers of the user's own classes stay whole. The layers of a container that is called several times are called
    several times.

    Proved: names, weights, sharing, configurations and arguments; with `verify` also that it is saved and loaded
    again, and that all outputs are the original's. Not proved: behaviour in training, where layers draw random
    numbers in another order.

    Args:
        model: functional or sequential; it is not changed.
        separator: what joins the parts of a name; Keras cannot load a `/`.
        verify: as for `edit`.
        report: as for `edit`.

    Raises:
        SurgeryError: if a container is called in a way that its layers cannot be, or two names become one.
    """
    require_model(model)
    if not is_graph(model) or not getattr(model, "inputs", None):
        raise SurgeryError(
            f"{model.name!r}, a {type(model).__name__}, has no graph whose containers could be flattened"
        )
    if not isinstance(separator, str):
        raise SurgeryError(f"separator={separator!r} is not a string; e.g. '.' or '_'")
    if names.fault(f"a{separator}b"):
        raise SurgeryError(f"no name can contain {separator!r}: {names.fault(f'a{separator}b')}; e.g. '.' or '_'")
    addresses = Addresses(model)
    graph = addresses.graph(model)
    own_names = {
        id(entry.layer): entry.name.replace(names.SEPARATOR, separator)
        for entry in addresses.entries
        if names.SEPARATOR in entry.name
    }
    top = set(map(id, graph.layers()))
    containers = [container for container in addresses.containers() if container is not model]
    graph.calls, _ = _inlined(graph, {})
    own_names = {
        id(layer): own_names[id(layer)] for layer in graph.layers() if id(layer) in own_names and id(layer) not in top
    }
    _refuse_clashes(graph, own_names)
    graph.lint()
    built = build(addresses, Blueprint(graph, set(), own_names))
    lines = [EditLine(addresses.name(container), "edit", "flattened") for container in containers]
    if verify:
        lines.append(verify_edit(model, built.model, range(len(values_in(graph.outputs)))))
    if report is not None:
        report(EditReport(str(model.name), tuple(lines), len(built.kept), built.copied))
    return built.model


def _inlined(graph: Graph, context: Mapping[str, Any]) -> tuple[list[Call], Any]:
    """Return the calls of a graph, in which those of containers are replaced by the calls inside, and its outputs."""
    calls: list[Call] = []
    changes: dict[int, Value] = {}
    for call in graph.calls:
        if is_graph(call.layer) and _masked_as_given(call):
            call.kwargs = {key: value for key, value in call.kwargs.items() if key != "mask"}
        call.rewire(changes)
        _pass_context(call, context)
        if not is_graph(call.layer):
            calls.append(call)
            continue
        if adds_code(call.layer):
            kind = type(call.layer).__name__
            raise SurgeryError(f"{call.layer.name!r} cannot be flattened: {kind}.call does more than call its layers")
        inner = read(call.layer)
        entering, casts = _entered(call, inner)
        inner.substitute(entering)
        own = {key: value for key, value in call.kwargs.items() if value is not None}
        if set(own) - {"training"}:
            raise SurgeryError(
                f"{call.layer.name!r} is called with {sorted(own)}, which cannot be passed to its layers"
            )
        within, outputs = _inlined(inner, own)
        calls += [*casts, *within]
        changes.update((id(old), new) for old, new in zip(call.outputs, values_in(outputs), strict=True))
    graph.outputs = tree.map_structure(lambda value: changes.get(id(value), value), graph.outputs)
    return calls, graph.outputs


def _masked_as_given(call: Call) -> bool:
    """Return whether the masks passed to a container are those of its tensors, where its layers find them anyway."""
    masks = tree.flatten(call.kwargs.get("mask"))
    if all(mask is None for mask in masks):
        return True
    given = values_in(call.args)
    return len(masks) == len(given) and all(
        mask is None or (isinstance(mask, Value) and mask.spec is keras_private.mask_of(value.spec))
        for mask, value in zip(masks, given, strict=True)
    )


def _pass_context(call: Call, context: Mapping[str, Any]) -> None:
    """Pass a container's call arguments on to a layer, as Keras does when it runs the container (`operation_fn`)."""
    for key, value in context.items():
        if keras_private.takes_context(call.layer, key):
            call.kwargs = {**call.kwargs, key: value}


def _entered(call: Call, inner: Graph) -> tuple[dict[int, Value], list[Call]]:
    """Return `{id(value): value outside}` for the inputs of a container, and the casts that they need."""
    given = values_in(call.args)
    if len(given) != len(inner.heads):
        raise SurgeryError(f"{call.layer.name!r} takes {len(inner.heads)} tensors and is called with {len(given)}")
    changes: dict[int, Value] = {}
    casts: list[Call] = []
    for head, value, spec in zip(inner.heads, given, (call.took or [])[: len(given)], strict=True):
        if len(spec.shape) != len(head.spec.shape):
            raise SurgeryError(
                f"{call.layer.name!r} takes {head.spec.shape} and gets {spec.shape}, which only a container converts"
            )
        if spec.dtype != head.spec.dtype:  # a container casts its inputs
            value = _cast(head, value, call, casts)
        changes[id(head.value)] = value
    return changes, casts


def _cast(head: Head, value: Value, call: Call, casts: list[Call]) -> Value:
    converted = Value()
    name = f"{call.layer.name}_to_{head.spec.dtype}_{len(casts)}"
    casts.append(Call(keras_private.cast_operator(head.spec.dtype, name), (value,), {}, [converted]))
    return converted


def _refuse_clashes(graph: Graph, own_names: Mapping[int, str]) -> None:
    taken: dict[str, str] = {}
    problems = []
    for layer in graph.layers():
        own = own_names.get(id(layer), str(layer.name))
        if own.casefold() in taken:
            problems.append(f"  {own}   twice: {taken[own.casefold()]} and {layer.name}")
        taken[own.casefold()] = str(layer.name)
    if problems:
        raise SurgeryError(
            "\n".join(["flattened, these names would be the same; choose another separator:", *problems])
        )
