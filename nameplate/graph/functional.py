"""A functional or sequential model as a graph of calls and values, which edits rewrite before anything is built."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import tree

from nameplate.errors import NameplateError
from nameplate.graph import keras_private
from nameplate.graph.clone import in_order


class SurgeryError(NameplateError):
    """An edit that cannot be made; nothing was built."""


@dataclass(eq=False)
class Value:
    """A tensor of a graph; `spec` is its shape and dtype after the edits, None if they cannot be known."""

    spec: Any = None  # a keras.KerasTensor


@dataclass(eq=False)
class Call:
    """One call of a layer or an operator."""

    layer: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[Value]
    took: list[Any] | None = None  # specs of the flat inputs in the original; None for a new call
    gave: list[Any] = field(default_factory=list)  # specs of the outputs in the original
    before: list[Value] = field(default_factory=list)  # the inputs in the original
    given: list[Value] = field(default_factory=list)  # the outputs in the original
    replaced: Any = None  # the layer that was called here in the original

    def inputs(self) -> list[Value]:
        """Return the input values, positional ones first."""
        return values_in((self.args, self.kwargs))

    def rewire(self, changes: Mapping[int, Value]) -> None:
        """Replace inputs: `{id(old): new}`."""
        self.args, self.kwargs = _mapped((self.args, self.kwargs), changes)


@dataclass(eq=False)
class Head:
    """An input of a graph."""

    layer: Any  # an InputLayer; None in a Sequential that is not built
    value: Value
    spec: Any = None  # of the tensor in the original, or the new one
    given: Value | None = None  # the value in the original


@dataclass(eq=False)
class Graph:
    """The calls of one functional or sequential container, in topological order."""

    container: Any
    name: str
    heads: list[Head]
    calls: list[Call]
    inputs: Any  # structure of values
    outputs: Any
    given_out: list[Value] = field(default_factory=list)  # the flat outputs in the original
    stack: bool = False  # a Sequential, which stays one as long as it is a single chain

    def layers(self) -> list[Any]:
        """Return each layer and operator once, inputs first, in the order of their first calls."""
        every = [*(head.layer for head in self.heads if head.layer is not None), *(call.layer for call in self.calls)]
        return list({id(layer): layer for layer in every}.values())

    def substitute(self, changes: Mapping[int, Value]) -> None:
        """Replace values wherever they are used: `{id(old): new}`; a replacement may be replaced too."""
        if not changes:
            return
        final = {key: _last(value, changes) for key, value in changes.items()}
        for call in self.calls:
            call.rewire(final)
        self.outputs = _mapped(self.outputs, final)

    def reached(self, changed: Collection[int]) -> set[int]:
        """Return the ids of the values that the edits affect; `changed` has the ids of replaced or rebuilt layers."""
        affected: set[int] = set()
        for head in self.heads:
            reshaped = head.spec is not None and head.layer is not None and not same(head.spec, head.layer.output)
            if head.layer is None or id(head.layer) in changed or reshaped:
                affected.add(id(head.value))
        for call in self.calls:
            inputs = [id(value) for value in call.inputs()]
            rewired = call.took is None or inputs != [id(value) for value in call.before]
            if rewired or id(call.layer) in changed or affected & set(inputs):
                affected |= {id(value) for value in call.outputs}
        return affected

    def untouched_outputs(self, changed: Collection[int]) -> list[int]:
        """Return the indices of the flat outputs that no edit affects."""
        reached = self.reached(changed)
        now = zip(self.given_out, values_in(self.outputs), strict=False)
        return [place for place, (old, new) in enumerate(now) if old is new and id(new) not in reached]

    def upstream(self, changed: Collection[int]) -> set[int]:
        """Return the ids of the values that no edit affects, except of layers that are also called downstream."""
        again = set(changed)
        while True:
            reached = self.reached(again)
            downstream = {id(call.layer) for call in self.calls if any(id(out) in reached for out in call.outputs)}
            if downstream <= again:
                every = [head.value for head in self.heads] + [value for call in self.calls for value in call.outputs]
                return {id(value) for value in every} - reached
            again |= downstream

    def prune(self) -> list[Call]:
        """Drop the calls that lead to no output, and return them."""
        live = {id(value) for value in values_in(self.outputs)}
        kept: list[Call] = []
        dropped: list[Call] = []
        for call in reversed(self.calls):
            if any(id(value) in live for value in call.outputs):
                live |= {id(value) for value in call.inputs()}
                kept.append(call)
            else:
                dropped.append(call)
        self.calls = kept[::-1]
        return dropped[::-1]

    def lint(self) -> None:
        """Check, before anything is built, that every value is produced once and before it is used.

        Raises:
            SurgeryError: with every call that takes a value nothing before it produces, and every value produced twice.
        """
        known = {id(head.value): "an input" for head in self.heads}
        problems = []
        for call in self.calls:
            name = repr(str(call.layer.name))
            problems += [f"{name} takes a value that no earlier call produces" for _ in _not_in(call.inputs(), known)]
            twice = [known[id(value)] for value in call.outputs if id(value) in known]
            problems += [f"{name} produces a value that {first} produces already" for first in twice]
            known.update((id(value), name) for value in call.outputs)
        problems += ["no call produces one of the outputs" for _ in _not_in(values_in(self.outputs), known)]
        if problems:
            lines = "\n".join(f"  {problem}" for problem in dict.fromkeys(problems))
            raise SurgeryError(f"the edited graph of {self.name!r} is inconsistent; nothing was built:\n{lines}")

    def is_row(self) -> bool:
        """Return whether the graph is a single chain of layers, which a Sequential can hold."""
        value = self.heads[0].value
        for call in self.calls:
            if call.kwargs or len(call.args) != 1 or call.args[0] is not value or len(call.outputs) != 1:
                return False
            value = call.outputs[0]
        distinct = len({id(call.layer) for call in self.calls}) == len(self.calls)
        return len(self.heads) == 1 and self.outputs is value and distinct and bool(self.calls)


def is_graph(layer: Any) -> bool:
    """Return whether a layer is a container that `read` accepts."""
    if isinstance(layer, keras_private.Functional):
        return keras_private.rebuilds_from_tensors(layer)
    return type(layer) is keras.Sequential


def has_graph(layer: Any) -> bool:
    """Return whether the graph of a container is what it computes, also if its class's constructor made the layers.

    Models in the style of KerasHub are such: their classes call `super().__init__(inputs, outputs)`. Their graphs can
    be read, and a part of one can be taken as a plain model; but an edited graph cannot be of that class.
    """
    return is_graph(layer) or (isinstance(layer, keras_private.Functional) and not adds_code(layer))


def why_closed(container: Any, *, top: bool) -> str:
    """Return why the graph of a container cannot be edited, and what can be done; `top`: it is the whole model."""
    kind = type(container).__name__
    if not has_graph(container):
        return f"the code of {kind} calls its layers. Only replace works there, if its configuration contains the layer"
    why = f"the constructor of {kind} makes its layers"
    if not top:
        return f"{why}. Only replace works there, if its configuration contains the layer"
    output = keras_private.source(container.outputs[0]).name
    way = f"nameplate.extract(model, {output!r}) gives a plain model to edit"
    return f"{why}, so an edited one would not be a {kind}. {way}"


def adds_code(container: Any) -> bool:
    """Return whether a class of the user's overrides `call`, so that it computes more than its graph."""
    return isinstance(container, keras_private.Functional) and type(container).call is not keras_private.Functional.call


def read(container: Any) -> Graph:
    """Return the graph of a container.

    Raises:
        SurgeryError: if the container holds layers outside its graph.
    """
    if isinstance(container, keras.Sequential):
        inner = keras_private.stack_graph(container)
        if inner is None:
            return _unbuilt(container)
        graph = _functional(inner, container)
        graph.stack = True
        return graph
    known = {id(operation) for operation in keras_private.operations(container)}
    loose = [layer.name for layer in keras_private.sublayers(container) if id(layer) not in known]
    if loose:
        raise SurgeryError(
            f"{container.name!r} holds layers outside its graph: {', '.join(map(repr, loose))}; an edit would lose "
            "them: attach them to the result yourself, or call them in the graph"
        )
    return _functional(container, container)


def values_in(structure: Any) -> list[Value]:
    """Return the values of a nested structure in flat order."""
    return [leaf for leaf in tree.flatten(structure) if isinstance(leaf, Value)]


def same(one: Any, other: Any) -> bool:
    """Return whether two specs have the same shape, dtype and sparsity."""
    return one is other or (
        tuple(one.shape) == tuple(other.shape) and one.dtype == other.dtype and bool(one.sparse) == bool(other.sparse)
    )


def listed(specs: Iterable[Any]) -> str:
    """Return specs as text: shapes, with the dtype unless it is float32."""
    texts = [f"{tuple(spec.shape)}{'' if spec.dtype == 'float32' else f' {spec.dtype}'}" for spec in specs]
    return " and ".join(texts) or "nothing"


def _functional(graph: Any, container: Any) -> Graph:
    known = {id(tensor): Value(tensor) for tensor in graph.inputs}
    heads = [
        Head(keras_private.source(tensor), known[id(tensor)], tensor, known[id(tensor)]) for tensor in graph.inputs
    ]
    calls = []
    for node, operation in in_order(graph):
        args, kwargs = node.arguments.fill_in(known)
        outputs = [Value(tensor) for tensor in node.outputs]
        known.update((id(tensor), value) for tensor, value in zip(node.outputs, outputs, strict=True))
        call = Call(operation, args, kwargs, outputs, list(node.arguments.keras_tensors), list(node.outputs))
        call.before, call.given = call.inputs(), list(outputs)
        calls.append(call)
    structures = (keras_private.inputs_struct(graph), keras_private.outputs_struct(graph))
    inputs, outputs = (tree.map_structure(lambda tensor: known[id(tensor)], struct) for struct in structures)
    return Graph(container, container.name, heads, calls, inputs, outputs, values_in(outputs))


def _unbuilt(container: Any) -> Graph:
    """Return the graph of a Sequential that is not built: a chain of values without specs."""
    every = keras_private.stacked(container)
    row = [layer for layer in every if not isinstance(layer, keras.layers.InputLayer)]
    first = next((layer for layer in every if isinstance(layer, keras.layers.InputLayer)), None)
    values = [Value() for _ in range(len(row) + 1)]
    calls = [Call(layer, (values[place],), {}, [values[place + 1]], took=[]) for place, layer in enumerate(row)]
    head = Head(first, values[0])
    return Graph(container, container.name, [head], calls, values[0], values[-1], [values[-1]], stack=True)


def _not_in(values: Iterable[Value], known: Mapping[int, str]) -> list[Value]:
    return [value for value in values if id(value) not in known]


def _mapped(structure: Any, changes: Mapping[int, Value]) -> Any:
    return tree.map_structure(lambda leaf: changes.get(id(leaf), leaf), structure)


def _last(value: Value, changes: Mapping[int, Value]) -> Value:
    while id(value) in changes:
        value = changes[id(value)]
    return value
