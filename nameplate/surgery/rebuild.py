"""A model built from edited graphs: every layer is copied once, in the caller's strategy scope.

Nothing is shared with the original, unless the blueprint asks for it.
"""

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
from nameplate.graph.copy_state import copy_names, copy_state, held, own_copy, restore_initializers
from nameplate.graph.equivalence import copy_attributes, untied
from nameplate.graph.functional import Call, Graph, SurgeryError, Value, adds_code, is_graph, same
from nameplate.graph.global_state import collector_paused, deep_graphs
from nameplate.graph.serializable import custom_objects
from nameplate.graph.tree import owned_variables, seeds, walk
from nameplate.surgery.addresses import Addresses


@dataclass
class Blueprint:
    """The model to build."""

    top: Graph
    opened: set[int]  # ids of the containers to build from their edited graphs
    own_names: Mapping[int, str] = field(default_factory=dict)  # new own names by id of the layer
    given: Mapping[int, Any] = field(default_factory=dict)  # the new layers by id
    replaces: Mapping[int, Any] = field(default_factory=dict)  # {id(new layer): layer whose values it takes}
    rebuilt: Mapping[int, Any] = field(default_factory=dict)  # layers whose weights get other shapes, by id
    share: bool = False  # whether to reuse what is upstream of all edits
    places: Mapping[int, str] = field(default_factory=dict)  # qualified names of the new layers by id
    part: bool = False  # whether it is a part of the top graph, so that its class does not apply


@dataclass
class Built:
    """A new model, and the origin of its layers."""

    model: Any
    kept: list[Any] = field(default_factory=list)  # layers of the original that were copied as they are
    weights: list[tuple[str, str, str]] = field(default_factory=list)  # (variable, what, detail) for all others
    copied: int = 0  # variables of the kept layers
    given: list[tuple[Any, Any]] = field(default_factory=list)  # (new layer as it was given, its copy in the model)


def build(addresses: Addresses, blueprint: Blueprint) -> Built:
    """Build the model of edited graphs.

    Raises:
        RebuildError: with each layer that cannot be recreated from its configuration, and the line to add.
    """
    size = sum(len(entry.sites) for entry in addresses.entries) + sum(
        len(walk(layer)) for layer in blueprint.given.values()
    )
    everything = [addresses.model, *(entry.layer for entry in addresses.entries), *blueprint.given.values()]
    maker = _Maker(addresses, blueprint)
    with (
        keras_private.undisturbed(),
        collector_paused(),
        keras_private.live_code(),
        deep_graphs(size),
        keras.saving.custom_object_scope(custom_objects(everything)),
        completed(everything),
        maker.ties(),
    ):
        return maker.finished(maker.container(blueprint.top))


class _Maker:
    def __init__(self, addresses: Addresses, blueprint: Blueprint) -> None:
        self._addresses = addresses
        self._blueprint = blueprint
        self._copier = Copier(blueprint.own_names, addresses.names)
        self._made: dict[int, Any] = {}
        self._units: list[tuple[Any, Any]] = []  # kept layers and their copies
        self._containers: list[tuple[Any, Any]] = []
        self._reused: list[Any] = []
        self._keys: dict[int, dict[str, str]] = {}  # by id of a container: {old key: new} of its inputs
        self._pairs: list[tuple[Any, Any]] = []  # every layer of the original that was kept, and its copy

    def ties(self) -> contextlib.AbstractContextManager[None]:
        """Return a context that keeps shared what the kept layers share with each other."""
        kept: dict[int, Any] = {}
        waiting = [self._blueprint.top]
        while waiting:
            for layer in waiting.pop().layers():
                if id(layer) in kept or id(layer) in self._blueprint.given:
                    continue
                kept[id(layer)] = layer
                if id(layer) in self._blueprint.opened:
                    waiting.append(self._addresses.graph(layer))
                elif isinstance(layer, keras.Layer):
                    kept.update((id(entry.layer), entry.layer) for entry in walk(layer))
        return self._copier.ties([self._addresses.model, *kept.values()])

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
        name = self._blueprint.own_names.get(id(graph.container), graph.name)
        if not graph.calls and not all(id(head) in heads for head in graph.heads):
            raise SurgeryError(f"nothing would be left of {str(graph.name)!r}, which is not built")
        if graph.stack and graph.is_row():
            row = [*heads.values(), *(layers[id(call.layer)] for call in graph.calls)]
            model = keras.Sequential(row, name=name)
        else:
            model = self._functional(graph, layers, heads, shared, name)
        self._containers.append((graph.container, model))
        return model

    def _shared(self, graph: Graph) -> dict[int, Any]:
        """Return `{id(value): tensor}` for the tensors of the original to reuse; none unless `share` is set."""
        if not self._blueprint.share or graph.stack:
            return {}
        changed = {*self._blueprint.opened, *self._blueprint.given, *self._blueprint.rebuilt}
        upstream = graph.upstream(changed)
        kept = {id(head.layer): head.layer for head in graph.heads if id(head.value) in upstream}
        kept |= {id(call.layer): call.layer for call in graph.calls if id(call.outputs[0]) in upstream}
        self._reused += kept.values()
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
            tree.map_structure(lambda value: tensors[id(value)], struct) for struct in (graph.inputs, graph.outputs)
        )
        self._keys[id(graph.container)] = _moved_keys(graph, heads)
        inputs = rekeyed(inputs, self._keys[id(graph.container)])
        part = self._blueprint.part and graph is self._blueprint.top
        plain = part and (adds_code(graph.container) or not is_graph(graph.container))
        whole = isinstance(graph.container, keras_private.Functional) and not plain
        kind = type(graph.container) if whole else keras.Model
        with warnings.catch_warnings():  # keys that differ from the inputs' names, as in the original
            warnings.filterwarnings("ignore", message="When providing `inputs` as a dict")
            return kind(inputs, outputs, name=name, **(graph_arguments(graph.container) if whole else {}))

    def _head(self, layer: Any, spec: Any) -> Any:
        """Return the input layer of a graph: a copy, or a new one if its shape changes."""
        copy = self._layer(layer)
        if spec is None or same(copy.output, spec):
            return copy
        return keras.layers.InputLayer(batch_shape=tuple(spec.shape), dtype=spec.dtype, name=copy.name)

    def _layer(self, layer: Any) -> Any:
        if id(layer) not in self._made:
            self._made[id(layer)] = self._new(layer)
        return self._made[id(layer)]

    def _new(self, layer: Any) -> Any:
        if id(layer) in self._blueprint.given:
            name = self._blueprint.own_names.get(id(layer), layer.name)
            return clone(layer, renamed={} if name == layer.name else {id(layer): name})
        if id(layer) in self._blueprint.opened:
            return self.container(self._addresses.graph(layer))
        copy = self._copier.copy(layer)
        if id(layer) not in self._blueprint.rebuilt and copy is not None:
            self._units.append((layer, copy))
        return copy

    def finished(self, model: Any) -> Built:
        """Set the values, flags and paths of all new layers, and return the result."""
        built = Built(model, kept=list(self._reused))
        for old, new in self._units:
            built.kept.append(old)
            built.copied += self._copy_unit(old, new)
        for old in self._blueprint.rebuilt.values():
            built.weights += self._copy_matching(old, self._made[id(old)], old)
        for key, given in self._blueprint.given.items():
            old = self._blueprint.replaces.get(key)
            if old is not None and not owned_variables(given):
                built.weights += self._copy_matching(old, self._made[key], given)
        built.given += [(given, self._made[key]) for key, given in self._blueprint.given.items() if key in self._made]
        for old, new in self._containers:
            explicit_names.copy_record(old, new, renamed=id(old) in self._blueprint.own_names or new.name != old.name)
            if isinstance(old, keras.Layer) and type(old) is type(new):
                self._copy_container(old, new)
        self._refuse_untied(built)
        return built

    def _copy_container(self, old: Any, new: Any) -> None:
        """Copy the variables and attributes that the class of an edited graph has besides its layers."""
        before, after = ([(variable.name, tuple(variable.shape)) for variable in held(layer)] for layer in (old, new))
        if before != after:
            place = self._addresses.name(old) or "the model itself"
            raise refusal(self._addresses.model, [f"{place}: has variables {before}, {after} after rebuilding"])
        self._pairs.append((old, new))
        copy_state([(old, new)])
        renamed = {str(layer.name): own for layer, own in self._renamed()}
        copy_attributes([(old, new)], renamed=renamed)
        keras_private.rename_layer(new, new.name, getattr(old, "path", None) and new.name)

    def _renamed(self) -> list[tuple[Any, str]]:
        own_names = self._blueprint.own_names
        layers = [entry.layer for entry in self._addresses.entries]
        return [(layer, own_names[id(layer)]) for layer in layers if id(layer) in own_names]

    def _refuse_untied(self, built: Built) -> None:
        """Refuse a model in which a shared variable became several, or that would change with the original."""
        given = [(old, new) for layer, copy in built.given for old, new in _with_parts(layer, copy)]
        reused = [(part, part) for layer in self._reused for part, _ in _with_parts(layer, layer)]
        pairs = [*reused, *self._pairs, *given]
        problems = untied(pairs, [self._addresses.name(old) or "the model itself" for old, _ in pairs], what="after it")
        if problems:
            raise SurgeryError(
                "\n".join(["the edit would change what is shared:", *(f"  {problem}" for problem in problems)])
            )

    def _copy_unit(self, old: Any, new: Any) -> int:
        """Copy the state of a kept layer with its contents; return how many variables it has."""
        entries = walk(old)
        if old.built if isinstance(old, keras.Layer) else False:
            _build(old, new)
        pairs = [(old, new), *paired(old, new, entries, self._copier)] if entries else [(old, new)]
        for _, copy in pairs:
            restore_initializers(copy)
        copy_state(pairs, done=self._copier.made)
        self._pairs += pairs
        places = [self._addresses.name(layer) for layer, _ in pairs]
        prove_equivalent(pairs, [entry.parent for entry in entries], places, renamed=self._blueprint.own_names)
        copy_names(pairs, [entry.parent for entry in entries], renamed=self._blueprint.own_names)
        return len(owned_variables(old)) if isinstance(old, keras.Layer) else 0

    def _copy_matching(self, old: Any, new: Any, label: Any) -> list[tuple[str, str, str]]:
        """Copy the values of an old layer where name, shape and dtype agree; return a line for each variable.

        `label` is the layer whose name the lines have.
        """
        restore_initializers(new)
        for entry in walk(new):
            restore_initializers(entry.layer)
        before = {name: variable for name, variable, _ in owned_variables(old)}
        states = {id(generator.state) for generator in seeds(new).values()}
        lines = []
        for name, variable, _ in owned_variables(new):
            if id(variable) in states:
                continue
            where = f"{self._blueprint.places.get(id(label)) or self._addresses.name(label)}/{name}"
            source = before.get(name)
            if source is not None and same_form(source, variable):
                variable.assign(own_copy(source.value))
                lines.append((where, "weight kept", f"{tuple(variable.shape)}"))
            else:
                was = f"{tuple(source.shape)} -> " if source is not None else ""
                lines.append((where, "weight new", f"{was}{tuple(variable.shape)}"))
        if old is label and isinstance(old, keras.Layer):
            keras_private.copy_flags(old, new)
        return lines


def _with_parts(layer: Any, copy: Any) -> list[tuple[Any, Any]]:
    """Return (layer, copy), and the pairs of their walks if these are equally long."""
    before, after = ([entry.layer for entry in walk(part)] for part in (layer, copy))
    pairs = [(layer, copy), *zip(before, after, strict=False)] if len(before) == len(after) else []
    return [(old, new) for old, new in pairs if isinstance(old, keras.Layer) and len(held(old)) == len(held(new))]


def same_form(one: Any, other: Any) -> bool:
    """Return whether two variables have the same shape and dtype."""
    return tuple(one.shape) == tuple(other.shape) and one.dtype == other.dtype


def _replay(call: Call, layer: Any, tensors: dict[int, Any], keys: Mapping[str, str]) -> None:
    args, kwargs = tree.map_structure(
        lambda leaf: tensors[id(leaf)] if isinstance(leaf, Value) else leaf, (call.args, call.kwargs)
    )
    outputs = tree.flatten(layer(*(rekeyed(argument, keys) for argument in args), **kwargs))
    tensors.update((id(value), tensor) for value, tensor in zip(call.outputs, outputs, strict=True))


def _moved_keys(graph: Graph, heads: Mapping[int, Any]) -> dict[str, str]:
    """Return `{old key: new}` for the dictionary inputs whose keys were the names of renamed inputs."""
    if not isinstance(graph.inputs, Mapping):
        return {}
    olds = {id(head.value): key for key, value in graph.inputs.items() for head in graph.heads if head.value is value}
    before = {tensor.name for tensor in getattr(graph.container, "inputs", None) or []}
    names = {id(head.value): heads[id(head)].name for head in graph.heads}
    return {key: names[value] for value, key in olds.items() if key in before and names[value] != key}


def _build(old: Any, new: Any) -> None:
    """Build a layer that no graph calls: one of an unbuilt Sequential that was built on its own."""
    config = old.get_build_config() if not new.built else None
    if config:
        new.build_from_config(config)
