"""A model from edited graphs: every layer is a copy, made once, in the caller's strategy scope; nothing is shared."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import tree

from nameplate.graph import explicit_names, keras_private
from nameplate.graph.clone import Copier, clone, paired, prove_equivalent, refusal, rekeyed
from nameplate.graph.constructor_arguments import completed, graph_arguments
from nameplate.graph.copy_state import copy_names, copy_state, held, restore_initializers
from nameplate.graph.equivalence import copy_attributes, untied
from nameplate.graph.functional import Call, Graph, SurgeryError, Value, adds_code, same
from nameplate.graph.global_state import collector_paused, deep_graphs
from nameplate.graph.serializable import custom_objects
from nameplate.graph.tree import owned_variables, seeds, walk
from nameplate.surgery.addresses import Addresses


@dataclass
class Blueprint:
    """What is to be made."""

    top: Graph
    opened: set[int]  # ids of containers that are made from their edited graphs
    own_names: Mapping[int, str] = field(default_factory=dict)  # of layers by id, where they get another
    given: Mapping[int, Any] = field(default_factory=dict)  # layers that edits gave, by id
    stands_for: Mapping[int, Any] = field(default_factory=dict)  # id of a given layer: whose values it may take over
    rebuilt: Mapping[int, Any] = field(default_factory=dict)  # layers whose weights get other shapes
    share: bool = False  # whether what lies upstream of all edits is not copied
    places: Mapping[int, str] = field(default_factory=dict)  # qualified names of the given layers, by id
    part: bool = False  # whether it is what layers inside give, without what a class does when it is called


@dataclass
class Built:
    """A new model, and where its layers come from."""

    model: Any
    kept: list[Any] = field(default_factory=list)  # layers of the original that came through whole
    weights: list[tuple[str, str, str]] = field(default_factory=list)  # (variable, what, detail) of all others
    taken: int = 0  # variables of kept layers
    anew: list[tuple[Any, Any]] = field(default_factory=list)  # (layer that was given, what stands for it)


def make(addresses: Addresses, order: Blueprint) -> Built:
    """Build the model of edited graphs.

    Raises:
        RebuildError: with each layer that cannot be made again from its configuration, and the line to add.
    """
    size = sum(len(entry.sites) for entry in addresses.entries) + sum(len(walk(each)) for each in order.given.values())
    everything = [addresses.model, *(entry.layer for entry in addresses.entries), *order.given.values()]
    maker = _Maker(addresses, order)
    with (
        keras_private.undisturbed(),
        collector_paused(),
        keras_private.live_code(),
        deep_graphs(size),
        keras.saving.custom_object_scope(custom_objects(everything)),
        completed(everything),
        maker.ties(),
    ):
        return maker.finished(maker.container(order.top))


class _Maker:
    def __init__(self, addresses: Addresses, order: Blueprint) -> None:
        self._addresses = addresses
        self._order = order
        self._copier = Copier(order.own_names, addresses.names)
        self._made: dict[int, Any] = {}
        self._units: list[tuple[Any, Any]] = []  # kept layers and their copies
        self._containers: list[tuple[Any, Any]] = []
        self._kept_as_they_are: list[Any] = []
        self._keys: dict[int, dict[str, str]] = {}  # by container, keys of its inputs that are others now
        self._pairs: list[tuple[Any, Any]] = []  # all of the original that came through, and its copies

    def ties(self) -> contextlib.AbstractContextManager[None]:
        """Keep shared what the layers that come through whole share with each other."""
        found: dict[int, Any] = {}
        waiting = [self._order.top]
        while waiting:
            for layer in waiting.pop().layers():
                if id(layer) in found or id(layer) in self._order.given:
                    continue
                found[id(layer)] = layer
                if id(layer) in self._order.opened:
                    waiting.append(self._addresses.graph(layer))
                elif isinstance(layer, keras.Layer):
                    found.update((id(entry.layer), entry.layer) for entry in walk(layer))
        return self._copier.ties([self._addresses.model, *found.values()])

    def container(self, graph: Graph) -> Any:
        """Return the model of a graph."""
        shared = self._shared(graph)
        layers = {
            id(call.layer): self._layer(call.layer)
            for call in graph.calls
            if not shared.keys() >= {id(value) for value in call.outputs}
        }
        heads = {
            id(head): head.layer if id(head.value) in shared else self._head(head.layer, head.spec)
            for head in graph.heads
            if head.layer is not None
        }
        if self._copier.faults:
            raise refusal(self._addresses.model, self._copier.faults)
        name = self._order.own_names.get(id(graph.container), graph.name)
        if not graph.calls and not all(id(head) in heads for head in graph.heads):
            raise SurgeryError(f"nothing would be left of {str(graph.name)!r}, which has not seen a shape")
        if graph.stack and graph.is_row():
            row = [*heads.values(), *(layers[id(call.layer)] for call in graph.calls)]
            model = keras.Sequential(row, name=name)
        else:
            model = self._functional(graph, layers, heads, shared, name)
        self._containers.append((graph.container, model))
        return model

    def _shared(self, graph: Graph) -> dict[int, Any]:
        """Return the tensors of the original that are taken as they are, by value; none unless that was asked for."""
        if not self._order.share or graph.stack:
            return {}
        changed = {*self._order.opened, *self._order.given, *self._order.rebuilt}
        upstream = graph.upstream(changed)
        kept = {id(head.layer): head.layer for head in graph.heads if id(head.value) in upstream}
        kept |= {id(call.layer): call.layer for call in graph.calls if id(call.outputs[0]) in upstream}
        self._kept_as_they_are += kept.values()
        every = [head.value for head in graph.heads] + [value for call in graph.calls for value in call.outputs]
        return {id(value): value.spec for value in every if id(value) in upstream}

    def _functional(
        self, graph: Graph, layers: Mapping[int, Any], heads: Mapping[int, Any], shared: Mapping[int, Any], name: str
    ) -> Any:
        tensors = {id(head.value): heads[id(head)].output for head in graph.heads} | dict(shared)
        for call in graph.calls:
            if id(call.layer) in layers:
                _replay(call, layers[id(call.layer)], tensors, self._keys.get(id(call.layer), {}))
        inputs, outputs = (
            tree.map_structure(lambda value: tensors[id(value)], each) for each in (graph.inputs, graph.outputs)
        )
        self._keys[id(graph.container)] = _moved_keys(graph, heads)
        inputs = rekeyed(inputs, self._keys[id(graph.container)])
        inside = self._order.part and graph is self._order.top and adds_code(graph.container)
        whole = isinstance(graph.container, keras_private.Functional) and not inside
        kind = type(graph.container) if whole else keras.Model
        with warnings.catch_warnings():  # of keys that differ from the inputs' names, as they did in the original
            warnings.filterwarnings("ignore", message="When providing `inputs` as a dict")
            return kind(inputs, outputs, name=name, **(graph_arguments(graph.container) if whole else {}))

    def _head(self, layer: Any, spec: Any) -> Any:
        """Return the input of a graph: a copy, or one of another shape."""
        made = self._layer(layer)
        if spec is None or same(made.output, spec):
            return made
        return keras.layers.InputLayer(batch_shape=tuple(spec.shape), dtype=spec.dtype, name=made.name)

    def _layer(self, layer: Any) -> Any:
        if id(layer) not in self._made:
            self._made[id(layer)] = self._new(layer)
        return self._made[id(layer)]

    def _new(self, layer: Any) -> Any:
        if id(layer) in self._order.given:
            name = self._order.own_names.get(id(layer), layer.name)
            return clone(layer, renamed={} if name == layer.name else {id(layer): name})
        if id(layer) in self._order.opened:
            return self.container(self._addresses.graph(layer))
        copy = self._copier.copy(layer)
        if id(layer) not in self._order.rebuilt and copy is not None:
            self._units.append((layer, copy))
        return copy

    def finished(self, model: Any) -> Built:
        """Give all that was made its values, flags and paths."""
        made = Built(model, kept=list(self._kept_as_they_are))
        for old, new in self._units:
            made.kept.append(old)
            made.taken += self._carry_unit(old, new)
        for old in self._order.rebuilt.values():
            made.weights += self._carry_agreeing(old, self._made[id(old)], old)
        for key, given in self._order.given.items():
            old = self._order.stands_for.get(key)
            if old is not None and not owned_variables(given):
                made.weights += self._carry_agreeing(old, self._made[key], given)
        made.anew += [(given, self._made[key]) for key, given in self._order.given.items() if key in self._made]
        for old, new in self._containers:
            explicit_names.copy_record(old, new, renamed=id(old) in self._order.own_names or new.name != old.name)
            if isinstance(old, keras.Layer) and type(old) is type(new):
                self._carry_container(old, new)
        self._refuse_untied(made)
        return made

    def _carry_container(self, old: Any, new: Any) -> None:
        """Give a model of an edited graph the variables and attributes that its class has beside the graph."""
        before, after = ([(each.name, tuple(each.shape)) for each in held(layer)] for layer in (old, new))
        if before != after:
            place = self._addresses.name(old) or "the model itself"
            raise refusal(self._addresses.model, [f"{place}: has variables {before}, {after} after rebuilding"])
        self._pairs.append((old, new))
        copy_state([(old, new)])
        renamed = {str(each.name): own for each, own in self._renamed()}
        copy_attributes([(old, new)], renamed=renamed)
        keras_private.rename_layer(new, new.name, getattr(old, "path", None) and new.name)

    def _renamed(self) -> list[tuple[Any, str]]:
        every = [entry.layer for entry in self._addresses.entries]
        return [(each, self._order.own_names[id(each)]) for each in every if id(each) in self._order.own_names]

    def _refuse_untied(self, made: Built) -> None:
        """Refuse a model in which variables that were one are several, or that would change with the original."""
        given = [(old, new) for layer, copy in made.anew for old, new in _with_parts(layer, copy)]
        whole = [(each, each) for layer in self._kept_as_they_are for each, _ in _with_parts(layer, layer)]
        pairs = [*whole, *self._pairs, *given]
        problems = untied(pairs, [self._addresses.name(old) or "the model itself" for old, _ in pairs], what="after it")
        if problems:
            raise SurgeryError(
                "\n".join(["the edit would change what is shared:", *(f"  {each}" for each in problems)])
            )

    def _carry_unit(self, old: Any, new: Any) -> int:
        """Carry a kept layer with all that is in it; return how many variables it has."""
        entries = walk(old)
        if old.built if isinstance(old, keras.Layer) else False:
            _build(old, new)
        pairs = [(old, new), *paired(old, new, entries, self._copier)] if entries else [(old, new)]
        for _, copy in pairs:
            restore_initializers(copy)
        copy_state(pairs, done=self._copier.made)
        self._pairs += pairs
        places = [self._addresses.name(each) for each, _ in pairs]
        prove_equivalent(pairs, [entry.parent for entry in entries], places, renamed=self._order.own_names)
        copy_names(pairs, [entry.parent for entry in entries], renamed=self._order.own_names)
        return len(owned_variables(old)) if isinstance(old, keras.Layer) else 0

    def _carry_agreeing(self, old: Any, new: Any, told: Any) -> list[tuple[str, str, str]]:
        """Give a new layer the values of an old one where name, shape and dtype agree; return what became of each."""
        restore_initializers(new)
        for entry in walk(new):
            restore_initializers(entry.layer)
        before = {name: variable for name, variable, _ in owned_variables(old)}
        states = {id(each.state) for each in seeds(new).values()}
        lines = []
        for name, variable, _ in owned_variables(new):
            if id(variable) in states:
                continue
            where = f"{self._order.places.get(id(told)) or self._addresses.name(told)}/{name}"
            source = before.get(name)
            if source is not None and same_form(source, variable):
                variable.assign(source.value)
                lines.append((where, "weight kept", f"{tuple(variable.shape)}"))
            else:
                was = f"{tuple(source.shape)} -> " if source is not None else ""
                lines.append((where, "weight new", f"{was}{tuple(variable.shape)}"))
        if old is told and isinstance(old, keras.Layer):
            keras_private.copy_flags(old, new)
        return lines


def _with_parts(layer: Any, copy: Any) -> list[tuple[Any, Any]]:
    """Return a layer and its copy, and those of their walks where these are alike."""
    before, after = ([entry.layer for entry in walk(each)] for each in (layer, copy))
    pairs = [(layer, copy), *zip(before, after, strict=False)] if len(before) == len(after) else []
    return [(old, new) for old, new in pairs if isinstance(old, keras.Layer) and len(held(old)) == len(held(new))]


def same_form(one: Any, other: Any) -> bool:
    """Tell whether two variables have the same shape and dtype."""
    return tuple(one.shape) == tuple(other.shape) and one.dtype == other.dtype


def _replay(call: Call, layer: Any, tensors: dict[int, Any], keys: Mapping[str, str]) -> None:
    args, kwargs = tree.map_structure(
        lambda leaf: tensors[id(leaf)] if isinstance(leaf, Value) else leaf, (call.args, call.kwargs)
    )
    outputs = tree.flatten(layer(*(rekeyed(each, keys) for each in args), **kwargs))
    tensors.update((id(value), tensor) for value, tensor in zip(call.outputs, outputs, strict=True))


def _moved_keys(graph: Graph, heads: Mapping[int, Any]) -> dict[str, str]:
    """Return the keys of dictionary inputs that go with the name of an input which has another now."""
    if not isinstance(graph.inputs, Mapping):
        return {}
    olds = {id(head.value): key for key, value in graph.inputs.items() for head in graph.heads if head.value is value}
    before = {tensor.name for tensor in getattr(graph.container, "inputs", None) or []}
    names = {id(head.value): heads[id(head)].name for head in graph.heads}
    return {key: names[value] for value, key in olds.items() if key in before and names[value] != key}


def _build(old: Any, new: Any) -> None:
    """Build what no graph called: a layer of a Sequential that has not seen a shape, built by itself."""
    config = old.get_build_config() if not new.built else None
    if config:
        new.build_from_config(config)
