"""A copy of a model under other names: the weights are equal bit for bit and nothing is shared with the original.

Every layer is created from its configuration under its new name, and the calls of a graph are repeated in order. What
a configuration omits (weights, seeds, flags, vocabularies, the names inside a subclassed layer) is copied layer by
layer. The two trees are compared before the copy is returned.
"""

from __future__ import annotations

import contextlib
import heapq
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
from keras import tree

from nameplate.errors import NameplateError, cause
from nameplate.graph import keras_private
from nameplate.graph.constructor_arguments import completed, graph_arguments
from nameplate.graph.copy_state import copy_names, copy_state, initialize_from, restore_initializers
from nameplate.graph.equivalence import computes_otherwise, copy_attributes, differing
from nameplate.graph.global_state import collector_paused, deep_graphs
from nameplate.graph.serializable import advice, custom_objects, live_lambdas, recreated, shared_by_code
from nameplate.graph.tree import Entry, direct, walk
from nameplate.naming import names


class RebuildError(NameplateError):
    """A layer that cannot be recreated from its configuration, so that the model cannot be copied or edited."""


def clone(model: keras.Model, *, renamed: Mapping[int, str] | None = None) -> keras.Model:
    """Return an uncompiled copy of the model, made inside the caller's strategy scope.

    Args:
        model: of any kind, built or not.
        renamed: `{id(layer): new own name}`, which may include the model; all other names are kept.

    Raises:
        RebuildError: with each layer that cannot be rebuilt or cannot take its new name, and the line to add.
    """
    entries = walk(model)
    layers = [model, *(entry.layer for entry in entries)]
    copier = Copier(renamed or {}, {id(entry.layer): entry.name for entry in entries})
    with (
        keras_private.undisturbed(),
        collector_paused(),
        keras_private.live_code(),
        deep_graphs(sum(len(entry.sites) for entry in entries)),
        keras.saving.custom_object_scope(custom_objects(layers)),
        completed(layers),
        copier.ties(layers),
    ):
        copy = copier.copy(model)
        if copier.faults:
            raise refusal(model, copier.faults)
        _build(model, copy)
        pairs = [(model, copy), *paired(model, copy, entries, copier)]
        for _, new in pairs:
            restore_initializers(new)
        copy_state(pairs, done=copier.made)
        places = ["the model itself", *(entry.name for entry in entries)]
        prove_equivalent(pairs, [entry.parent for entry in entries], places, renamed=copier.renamed)
        copy_names(pairs, [entry.parent for entry in entries], renamed=copier.renamed)
    return copy


def prove_equivalent(
    pairs: Sequence[tuple[Any, Any]], parents: Sequence[int], places: Sequence[str], *, renamed: Mapping[int, str]
) -> None:
    """Copy the attributes of the user's classes, then compare configurations, arguments, sharing and outputs.

    Args:
        pairs: (original, copy) of a model or a layer, and then of each layer in its walk.
        parents: for each layer in the walk, the index of its container; -1 is the model itself.
        places: what to call each of the pairs in messages.
        renamed: `{id(layer): new own name}`.

    Raises:
        RebuildError: with all that differs, and the line to add.
    """
    (original, copy), *_ = pairs
    copy_attributes(pairs, renamed={str(old.name): renamed[id(old)] for old, _ in pairs if id(old) in renamed})
    problems = differing(pairs, places, parents, what="after rebuilding")
    problems = problems or computes_otherwise(original, copy, pairs, what="after rebuilding")
    if problems:
        raise refusal(original, problems)


class Copier:
    """Copies each layer once; what goes wrong is collected in `faults`, so that all of it can be reported."""

    def __init__(self, renamed: Mapping[int, str], places: Mapping[int, str]) -> None:
        """Take `{id(layer): new own name}`, and `{id(layer): qualified name}` for messages."""
        self.renamed = renamed
        self.faults: list[str] = []
        self._places = places
        self._copies: dict[int, Any] = {}
        self.made: set[int] = set()  # ids of variables that were created with their final values
        # By id of a graph: {old key: new} of its dictionary inputs, {new key: old} of its dictionary outputs.
        self._keys: dict[int, tuple[dict[str, str], dict[str, str]]] = {}
        self._makers: dict[
            int, tuple[Any, int]
        ] = {}  # by id of a layer: the layer that creates it, and its index there

    @contextlib.contextmanager
    def ties(self, layers: Sequence[Any]) -> Iterator[None]:
        """Within the context, copy these layers so that what they share stays shared.

        A layer in several configurations becomes one copy. A layer that a class creates, and that is also called
        outside it, is taken from the copy of that class.
        """
        graphs = [layer for layer in layers if self.is_replayed(layer)]
        for layer in layers:
            if not self.is_replayed(layer):
                for place, child in enumerate(direct(layer)):
                    self._makers.setdefault(id(child), (layer, place))
        if not any(id(child) in self._makers for graph in graphs for child in direct(graph)):
            self._makers.clear()  # nothing is called outside the class that creates it
        with keras_private.sharing(self._copies, [id(layer) for layer in layers if isinstance(layer, keras.Layer)]):
            yield

    def copy(self, layer: Any) -> Any:
        """Return the copy of a layer with its contents, the same one each time; None if it cannot be copied."""
        if id(layer) not in self._copies:
            made = self._made_by_its_class(layer) if id(layer) in self._makers else None
            self._copies[id(layer)] = self._route(layer)(layer) if made is None else made
        return self._copies[id(layer)]

    def copied(self, layer: Any) -> Any:
        """Return the copy of a layer; None if the class of its container created the copy."""
        return self._copies.get(id(layer))

    def _made_by_its_class(self, layer: Any) -> Any:
        """Return the counterpart of a layer in the copy of the class that creates it; None if there is none yet."""
        maker, place = self._makers[id(layer)]
        copy = self.copy(maker)
        inside = direct(copy) if copy is not None else []
        if place >= len(inside) and maker.built and copy is not None:
            _build(maker, copy)
            inside = direct(copy)
        return inside[place] if place < len(inside) and type(inside[place]) is type(layer) else None

    def is_replayed(self, layer: Any) -> bool:
        """Return whether a container is copied call by call rather than from its configuration."""
        graph = isinstance(layer, keras_private.Functional) and keras_private.rebuilds_from_tensors(layer)
        return graph or type(layer) is keras.Sequential

    def _route(self, layer: Any) -> Callable[[Any], Any]:
        if isinstance(layer, keras_private.Functional) and keras_private.rebuilds_from_tensors(layer):
            return self._graph
        if type(layer) is keras.Sequential:
            return self._stack
        if not isinstance(layer, keras.Layer):
            return lambda operator: keras_private.detached(operator, self._name(operator))
        if type(layer) is keras.layers.Lambda:
            return self._lambda
        return self._configured

    def _graph(self, model: Any) -> Any:
        tensors = {id(old): self.copy(keras_private.source(old)).output for old in model.inputs}
        for operation in keras_private.operations(model):
            self.copy(operation)
        if self.faults:  # the calls would only fail too
            return None
        for node, operation in in_order(model):
            arguments, keywords = node.arguments.fill_in(tensors)
            keys, back = self._keys.get(id(operation), ({}, {}))
            outputs = self.copy(operation)(*(rekeyed(argument, keys) for argument in arguments), **keywords)
            for old, new in zip(node.outputs, tree.flatten(rekeyed(outputs, back)), strict=True):
                tensors[id(old)] = new
        inputs, input_keys = self._structure(keras_private.inputs_struct(model), tensors)
        outputs, output_keys = self._structure(keras_private.outputs_struct(model), tensors)
        self._keys[id(model)] = input_keys, {new: old for old, new in output_keys.items()}
        with warnings.catch_warnings():  # keys that differ from the inputs' names, as in the original
            warnings.filterwarnings("ignore", message="When providing `inputs` as a dict")
            return type(model)(inputs, outputs, name=self._name(model), **graph_arguments(model))

    def _stack(self, model: Any) -> Any:
        layers = [self.copy(layer) for layer in keras_private.stacked(model)]
        return None if self.faults else keras.Sequential(layers, name=self._name(model))

    def _lambda(self, layer: Any) -> Any:
        self._refuse_shared(layer, layer.function)
        return keras_private.live_lambda(layer, self._name(layer))

    def _refuse_shared(self, layer: Any, function: Any) -> None:
        shared = shared_by_code(function)
        if shared:
            self.faults.append(
                f"{self._place(layer)}: its function uses {', '.join(shared)} without tracking it, so a copy would "
                "share its weights; write a layer that has them as attributes"
            )

    def _configured(self, layer: Any) -> Any:
        name = self._name(layer)
        for function in live_lambdas(layer).values():
            self._refuse_shared(layer, function)
        try:
            copy = recreated(layer, name)
        except Exception as error:  # a class of the user's may raise anything
            self.faults.append(
                f"{self._place(layer)}: {type(layer).__name__} cannot be rebuilt from its configuration; "
                f"{advice(layer, error)} ({type(error).__name__}: {cause(error)})"
            )
            return None
        if copy.name != name and id(layer) in self.renamed and id(layer) in self._places:
            self.faults.append(f"{self._place(layer)}: its class drops the name; {advice(layer)}")
        if layer.built and not copy.built:
            initialize_from(copy, layer, self.made)
        return copy

    def _structure(self, struct: Any, tensors: Mapping[int, Any]) -> tuple[Any, dict[str, str]]:
        """Return the new inputs or outputs of a graph, and `{old key: new}` for the keys that were names of layers."""
        made = tree.map_structure(lambda tensor: tensors[id(tensor)], struct)
        keys: dict[str, str] = {}
        if isinstance(struct, Mapping):
            for key, tensor in struct.items():
                if isinstance(tensor, keras.KerasTensor) and key == keras_private.source(tensor).name:
                    keys[key] = self.renamed.get(id(keras_private.source(tensor)), key)
        return rekeyed(made, keys), keys

    def _name(self, layer: Any) -> str:
        """Return the name to create a copy under; a name that Keras would refuse is set at the end."""
        name = self.renamed.get(id(layer), layer.name)
        return name if isinstance(name, str) and "/" not in name else names.sanitized(name) or "layer"

    def _place(self, layer: Any) -> str:
        return self._places.get(id(layer), f"the model {layer.name!r}")


def in_order(model: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (node, operation) in topological order, keeping the order of the calls of one operation."""
    every = keras_private.nodes(model)
    index_of = {id(node): index for index, (node, _, _) in enumerate(every)}
    called = {(id(operation), call): index for index, (_, operation, call) in enumerate(every)}
    waiting = [0] * len(every)
    followers: list[list[int]] = [[] for _ in every]
    for index, (node, operation, call) in enumerate(every):
        before = [index_of[id(parent)] for parent in node.parent_nodes if id(parent) in index_of]
        if call:
            before.append(called[id(operation), call - 1])
        waiting[index] = len(before)
        for earlier in before:
            followers[earlier].append(index)
    ready = [index for index, count in enumerate(waiting) if not count]
    heapq.heapify(ready)
    while ready:
        index = heapq.heappop(ready)
        node, operation, _ = every[index]
        if not node.is_input:
            yield node, operation
        for follower in followers[index]:
            waiting[follower] -= 1
            if not waiting[follower]:
                heapq.heappush(ready, follower)


def rekeyed(value: Any, keys: Mapping[str, str]) -> Any:
    """Return a dictionary with some keys replaced; anything else unchanged."""
    if not keys or not isinstance(value, dict):
        return value
    return {keys.get(key, key): item for key, item in value.items()}


def _build(model: Any, copy: Any) -> None:
    """Build a copy as its original was built; a graph is built by construction."""
    config = model.get_build_config()
    if not config or copy.built:
        return
    if not model.weights:  # `model.build(shape)` of a class without `build` creates nothing but sets the flag
        copy.built = model.built
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras only warns if it cannot build; `paired` finds what is missing
        copy.build_from_config(config)
    copy.built = model.built


def paired(model: Any, copy: Any, entries: list[Entry], copier: Copier) -> list[tuple[Any, Any]]:
    """Return (layer, its copy) in the order of the walk; layers that a class creates are paired by position.

    Raises:
        RebuildError: if the copy does not have the layers and variables of the original.
    """
    inside: dict[int, list[Any]] = {}
    pairs: list[tuple[Any, Any]] = []
    problems: list[str] = []
    for entry in entries:
        above = copy if entry.parent < 0 else pairs[entry.parent][1]
        new = copier.copied(entry.layer)
        if new is None or not copier.is_replayed(entries[entry.parent].layer if entry.parent >= 0 else model):
            made = inside.setdefault(id(above), direct(above))
            new = made[entry.place] if entry.place < len(made) else None
        pairs.append((entry.layer, new))
        if type(new) is not type(entry.layer):
            what = "missing after rebuilding" if new is None else f"became a {type(new).__name__}"
            problems.append(f"{entry.name}: {what}")
            break
        if isinstance(new, keras.Layer) and entry.layer.built:
            _build(entry.layer, new)  # built on its own, in a model that is not built
        before, after = _shapes(entry.layer), _shapes(new)
        if before != after:
            problems.append(f"{entry.name}: has variables {_listed(before)}, after rebuilding {_listed(after)}")
    if not problems and len(walk(copy)) != len(entries):
        problems.append(f"{len(entries)} layers became {len(walk(copy))}")
    if _shapes(model) != _shapes(copy):
        problems.append(
            f"the model itself: has variables {_listed(_shapes(model))}, after rebuilding {_listed(_shapes(copy))}"
        )
    if problems:
        problems.append(
            "variables or layers that a class creates when it is called need a build method that creates them; layers "
            "that were attached to a model from outside need a place in its graph"
        )
        raise refusal(model, problems)
    return pairs


def _shapes(layer: Any) -> list[tuple[str, tuple[int, ...]]]:
    held = [(variable.name, tuple(variable.shape)) for variable in keras_private.own_variables(layer)]
    named = [("variable" if names.is_automatic(name, "Variable") else name, shape) for name, shape in held]
    return [*named, *(("seed", (2,)) for _ in keras_private.seed_generators(layer))]


def _listed(shapes: list[tuple[str, tuple[int, ...]]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes) or "none"


def refusal(model: Any, faults: list[str]) -> RebuildError:
    """Return the error that lists everything that prevents a copy."""
    head = f"{model.name!r} cannot be copied:"
    return RebuildError("\n".join([head, *(f"  {fault}" for fault in faults)]))
