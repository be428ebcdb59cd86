"""Extract: the part of a model from named layers to named layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import tree

from nameplate.arguments import checked
from nameplate.graph import keras_private
from nameplate.graph.functional import Graph, Head, SurgeryError, Value, adds_code, has_graph, values_in
from nameplate.graph.global_state import collector_paused
from nameplate.graph.tree import require_model
from nameplate.surgery.addresses import Addresses, is_input
from nameplate.surgery.rebuild import Blueprint, build
from nameplate.surgery.shapes import ShapePropagation
from nameplate.surgery.verification import EditLine, EditReport, Listener, verify_edit

Outputs = str | Sequence[str] | Mapping[str, str]


@checked
@collector_paused()
def extract(
    model: keras.Model,
    outputs: Outputs,
    *,
    inputs: Sequence[str] | None = None,
    at: Mapping[str, int] | None = None,
    name: str | None = None,
    verify: bool = True,
    report: Listener | None = None,
) -> keras.Model:
    """Return an uncompiled copy of the part that computes the outputs of these layers, in the caller's strategy scope.

    Proved: names, weights, sharing, configurations and arguments of the part; with `verify` also that it is saved and
    loaded again with equal outputs. Not proved: that these are the values inside the original.

    Args:
        model: functional or sequential; it is not changed.
        outputs: the qualified name of a layer, several in a list, or `{output key: name}`. Layers inside containers are
            allowed, and the containers remain.
        inputs: layers whose outputs become the new inputs, under their names; by default those of the model's inputs
            that are needed. With `inputs`, all names must be in one container, and the part is taken out of it.
        at: which call, counted from 0, of layers that are called several times.
        name: of the new model; by default the container's.
        verify: as for `edit`.
        report: as for `edit`.

    Raises:
        SurgeryError: for names that do not exist, and for a part that depends on something else too.
    """
    require_model(model)
    addresses = Addresses(_editable(model), part=True)
    wanted = _wanted(outputs)
    inputs = [inputs] if isinstance(inputs, str) else inputs
    if unused := [layer for layer in at or {} if layer not in {*wanted, *(inputs or ())}]:
        raise SurgeryError(f"at={at}: {unused[0]!r} is neither among the outputs nor among the inputs")
    if inputs is None:
        graph, opened = _from_the_inputs(addresses, wanted, at or {})
    else:
        graph, opened = _between(addresses, wanted, list(inputs), at or {}), []
    graph.outputs = _structure(outputs, graph.outputs)
    graph.name = name or graph.name
    _trim(addresses, graph, opened)
    _drop_heads(graph, asked=inputs)
    shapes = ShapePropagation(
        addresses, {id(container) for container in [*opened, graph.container]}, {}, {}, rebuild=False
    )
    shapes.run(graph)
    shapes.refuse()
    graph.lint()
    built = build(addresses, Blueprint(graph, shapes.opened, part=True))
    lines = [EditLine(layer, "output", "is an output") for layer in wanted] + [
        EditLine(str(head.layer.name), "input", "is an input") for head in graph.heads if head.layer is not None
    ]
    if verify:
        lines.append(verify_edit(model, built.model, []))
    if report is not None:
        report(EditReport(str(model.name), tuple(lines), len(built.kept), built.copied))
    return built.model


def _editable(model: Any) -> Any:
    if has_graph(model) and getattr(model, "inputs", None):
        return model
    why = "it is not built yet; build it first" if has_graph(model) else "its code calls its layers"
    raise SurgeryError(f"nothing can be extracted from the {type(model).__name__} {model.name!r}: {why}")


def _wanted(outputs: Outputs) -> list[str]:
    if not isinstance(outputs, str | Sequence | Mapping):
        raise SurgeryError(f"outputs={outputs!r} is not a qualified name, a list of them, or {{key: name}}")
    if isinstance(outputs, str):
        return [outputs]
    wanted = list(outputs.values() if isinstance(outputs, Mapping) else outputs)
    if not wanted:
        raise SurgeryError("extract needs the name of at least one layer: outputs=[...]")
    return wanted


def _structure(asked: Outputs, flat: Any) -> Any:
    """Return the values in the structure of the request; `flat` has all the outputs of each layer."""
    if isinstance(asked, str):
        return flat[0][0] if len(flat[0]) == 1 else flat[0]
    if isinstance(asked, Mapping):
        several = [name for name, values in zip(asked.values(), flat, strict=True) if len(values) > 1]
        if several:
            raise SurgeryError(
                f"{several[0]!r} has several outputs, and one key cannot name them; ask for it in a list"
            )
        return {key: values[0] for key, values in zip(asked, flat, strict=True)}
    return [value for values in flat for value in values]


# ---- from the model's own inputs --------------------------------------------------------------------------------


def _from_the_inputs(addresses: Addresses, wanted: Sequence[str], at: Mapping[str, int]) -> tuple[Graph, list[Any]]:
    graph = addresses.graph(addresses.model)
    opened: dict[int, Any] = {}
    located = [_outputs_of(addresses, name, at) for name in wanted]  # before any container gets more outputs
    graph.outputs = [[_lifted(addresses, holder, value, opened) for value in values] for holder, values in located]
    return graph, list(opened.values())


def _outputs_of(addresses: Addresses, name: str, at: Mapping[str, int]) -> tuple[Graph, list[Value]]:
    """Return the graph that calls a layer, and the outputs of that call."""
    layer = addresses.layer(name)
    if is_input(layer):
        graph, head = addresses.heads(layer)[0]
        return graph, [head.value]
    sites = addresses.sites(layer, at.get(name), what="extract")
    if len(sites) != 1:
        raise SurgeryError(f"{name!r} is called {len(sites)} times; say which call with at={{{name!r}: 0}}")
    graph, call = sites[0]
    return graph, list(call.outputs)


def _lifted(addresses: Addresses, graph: Graph, value: Value, opened: dict[int, Any]) -> Value:
    """Make a value inside a container an output of it, and return that output in the model's own graph."""
    container = graph.container
    if container is addresses.model:
        return value
    sites = addresses.sites(container, None, what="extract from")
    if len(sites) != 1:
        raise SurgeryError(
            f"{addresses.name(container)!r} is called {len(sites)} times, so its layers have as many outputs; "
            "flatten the model first, or give inputs= inside it too"
        )
    outer, call = sites[0]
    if adds_code(container):
        raise SurgeryError(
            f"nothing inside {addresses.name(container)!r} can be extracted: {type(container).__name__}.call does more "
            "than call its layers; give inputs= inside it too"
        )
    opened[id(container)] = container
    inside = values_in(graph.outputs)
    place = next((index for index, output in enumerate(inside) if output is value), None)
    if place is None:
        place = len(inside)
        graph.outputs = [*inside, value]
        call.outputs.append(Value())
        call.gave.append(value.spec)
    if outer.container is not addresses.model:
        opened[id(outer.container)] = outer.container
    return _lifted(addresses, outer, call.outputs[place], opened)


def _trim(addresses: Addresses, top: Graph, opened: Sequence[Any]) -> None:
    """Drop the calls that lead to no output, in the model and then, with unused outputs, in each container."""
    top.prune()
    for container in reversed(list(opened)):
        graph = addresses.graph(container)
        calls = [call for _, call in addresses.sites(container, None, what="extract from")]
        used = {id(value) for holder in addresses.holders(container) for value in _taken(addresses.graph(holder))}
        inside = values_in(graph.outputs)
        kept = [index for index in range(len(inside)) if any(id(call.outputs[index]) in used for call in calls)]
        for call in calls:
            call.outputs = [call.outputs[index] for index in kept]
            call.gave = [call.gave[index] for index in kept]
        left = [inside[index] for index in kept]
        graph.outputs = left[0] if len(left) == 1 else left
        graph.prune()


def _taken(graph: Graph) -> list[Value]:
    return [value for call in graph.calls for value in call.inputs()] + values_in(graph.outputs)


# ---- between named layers of one container ----------------------------------------------------------------------


def _between(addresses: Addresses, wanted: Sequence[str], inputs: Sequence[str], at: Mapping[str, int]) -> Graph:
    located = {name: _outputs_of(addresses, name, at) for name in [*wanted, *inputs]}
    graphs = {id(graph): graph for graph, _ in located.values()}
    if len(graphs) != 1:
        places = ", ".join(repr(addresses.name(graph.container) or "the model itself") for graph in graphs.values())
        raise SurgeryError(
            f"with inputs=, all names must be in one container; these are in {places}. Flatten the model first"
        )
    graph = next(iter(graphs.values()))
    heads: list[Head] = []
    for name in dict.fromkeys(inputs):
        heads += _cut_in(graph, addresses.layer(name), located[name][1])
    old = {id(head.value): str(head.layer.name) for head in graph.heads if head not in heads}
    graph.heads = heads
    graph.inputs = heads[0].value if len(heads) == 1 else [head.value for head in heads]
    graph.outputs = [located[name][1] for name in wanted]
    graph.prune()
    _refuse_others(graph, old, inputs)
    return graph


def _cut_in(graph: Graph, layer: Any, values: Sequence[Value]) -> list[Head]:
    """Return new inputs for the outputs of a layer, and remove its call."""
    existing = [head for head in graph.heads if head.value is values[0]]
    if existing:
        return existing
    graph.calls = [call for call in graph.calls if call.outputs != list(values)]
    own = str(layer.name)
    several = len(values) > 1
    return [
        Head(_input_like(value.spec, f"{own}_{place}" if several else own), value, value.spec)
        for place, value in enumerate(values)
    ]


def _input_like(spec: Any, name: str) -> Any:
    with keras_private.undisturbed():
        return keras.layers.InputLayer(batch_shape=tuple(spec.shape), dtype=spec.dtype, sparse=spec.sparse, name=name)


def _refuse_others(graph: Graph, old: Mapping[int, str], inputs: Sequence[str]) -> None:
    """Refuse a part that depends on more than its inputs; `old` names the inputs of the original that were dropped."""
    missing = [old[id(value)] for value in _taken(graph) if id(value) in old]
    if missing:
        others = ", ".join(map(repr, dict.fromkeys(missing)))
        raise SurgeryError(
            f"the outputs depend not only on {', '.join(map(repr, inputs))} but also on {others}. Add it to inputs="
        )


def _drop_heads(graph: Graph, *, asked: Sequence[str] | None) -> None:
    """Drop unused inputs, unless they were asked for."""
    used = {id(value) for value in _taken(graph)}
    idle = {id(head.value) for head in graph.heads if id(head.value) not in used}
    if not idle or asked is not None:
        return
    graph.heads = [head for head in graph.heads if id(head.value) not in idle]
    if isinstance(graph.inputs, Mapping):
        graph.inputs = {key: value for key, value in graph.inputs.items() if id(value) not in idle}
    else:
        left = [value for value in tree.flatten(graph.inputs) if id(value) not in idle]
        graph.inputs = left[0] if len(left) == 1 else left
