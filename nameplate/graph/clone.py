"""A copy of a model whose layers have other names: the weights are equal bit for bit, nothing is shared.

Every layer is made from its configuration, with its new name from birth, and the calls of a graph are
repeated in their order. What a configuration does not say (weights, seeds, flags, vocabularies, the names
inside a class of the user's) is carried over layer by layer, and the two trees are compared before anything
is handed out.
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
from nameplate.graph.copy_state import born, born_with, carry, settle
from nameplate.graph.equivalence import carry_attributes, computes_otherwise, differing
from nameplate.graph.global_state import collector_paused, deep_graphs
from nameplate.graph.serializable import advice, carries, custom_objects, live_lambdas, shared_by_code
from nameplate.graph.tree import Entry, direct, walk
from nameplate.naming import names


class RebuildError(NameplateError):
    """A layer cannot be made again from its configuration, so that the model cannot be edited."""


def clone(model: keras.Model, *, renamed: Mapping[int, str] | None = None) -> keras.Model:
    """Return an uncompiled copy of the model, made inside the caller's strategy scope.

    Args:
        model: of any kind, built or not.
        renamed: `{id(layer): new own name}`, of the model too; the others keep theirs.

    Raises:
        RebuildError: with each layer that cannot be rebuilt or cannot carry its new name, and the line to
        add.
    """
    entries = walk(model)
    every = [model, *(entry.layer for entry in entries)]
    copier = Copier(renamed or {}, {id(entry.layer): entry.name for entry in entries})
    with (
        keras_private.undisturbed(),
        collector_paused(),
        keras_private.live_code(),
        deep_graphs(sum(len(entry.sites) for entry in entries)),
        keras.saving.custom_object_scope(custom_objects(every)),
        completed(every),
        copier.ties(every),
    ):
        copy = copier.copy(model)
        if copier.faults:
            raise refusal(model, copier.faults)
        _build(model, copy)
        pairs = [(model, copy), *paired(model, copy, entries, copier)]
        for _, new in pairs:
            born(new)
        carry(pairs, done=copier.made)
        places = ["the model itself", *(entry.name for entry in entries)]
        prove_equivalent(pairs, [entry.parent for entry in entries], places, renamed=copier.renamed)
        settle(pairs, [entry.parent for entry in entries], renamed=copier.renamed)
    return copy


def prove_equivalent(
    pairs: Sequence[tuple[Any, Any]], parents: Sequence[int], places: Sequence[str], *, renamed: Mapping[int, str]
) -> None:
    """Carry what the user's classes keep on themselves, and compare: configurations, arguments, ties and outputs.

    Args:
        pairs: a model, or a layer, with its copy, and then those of its walk.
        parents: for each of the walk, the place of its container in it; -1 is the model itself.
        places: what each of the pairs is called in messages.
        renamed: `{id(layer): new own name}`.

    Raises:
        RebuildError: with all that differs, and the line to add.
    """
    (original, copy), *_ = pairs
    carry_attributes(pairs, renamed={str(old.name): renamed[id(old)] for old, _ in pairs if id(old) in renamed})
    problems = differing(pairs, places, parents, what="after rebuilding")
    problems = problems or computes_otherwise(original, copy, pairs, what="after rebuilding")
    if problems:
        raise refusal(original, problems)


class Copier:
    """Copies layers once each; what goes wrong is collected in `faults`, so that all of it can be told."""

    def __init__(self, renamed: Mapping[int, str], places: Mapping[int, str]) -> None:
        """Take `{id(layer): new own name}`, and `{id(layer): where it is}` for what goes wrong."""
        self.renamed = renamed
        self.faults: list[str] = []
        self._places = places
        self._copies: dict[int, Any] = {}
        self.made: set[int] = set()  # ids of variables that were born with their values
        self._keys: dict[int, tuple[dict[str, str], dict[str, str]]] = {}
        self._makers: dict[int, tuple[Any, int]] = {}

    @contextlib.contextmanager
    def ties(self, layers: Sequence[Any]) -> Iterator[None]:
        """Keep shared what these layers share while they are copied.

        A layer that is in the configuration of several becomes one copy; one that the code of a class makes, and that
        is called outside it too, is taken from that class' copy.
        """
        graphs = [each for each in layers if self.is_replayed(each)]
        for layer in layers:
            if not self.is_replayed(layer):
                for place, child in enumerate(direct(layer)):
                    self._makers.setdefault(id(child), (layer, place))
        if not any(id(child) in self._makers for graph in graphs for child in direct(graph)):
            self._makers.clear()  # nothing is called outside of what makes it
        with keras_private.sharing(self._copies, [id(each) for each in layers if isinstance(each, keras.Layer)]):
            yield

    def copy(self, layer: Any) -> Any:
        """Return the copy of a layer with all that is in it, the same one each time; None where that went wrong."""
        if id(layer) not in self._copies:
            made = self._made_by_its_class(layer) if id(layer) in self._makers else None
            self._copies[id(layer)] = self._route(layer)(layer) if made is None else made
        return self._copies[id(layer)]

    def copied(self, layer: Any) -> Any:
        """Return the copy that was made of a layer; None for what its container's class made."""
        return self._copies.get(id(layer))

    def _made_by_its_class(self, layer: Any) -> Any:
        """Return what the copy of the class that makes a layer has in its place, None where there is none yet."""
        maker, place = self._makers[id(layer)]
        copy = self.copy(maker)
        inside = direct(copy) if copy is not None else []
        if place >= len(inside) and maker.built and copy is not None:
            _build(maker, copy)
            inside = direct(copy)
        return inside[place] if place < len(inside) and type(inside[place]) is type(layer) else None

    def is_replayed(self, layer: Any) -> bool:
        """Tell whether a container is copied call by call, not by its class."""
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
        if self.faults:  # their calls would only fail again
            return None
        for node, operation in in_order(model):
            arguments, keywords = node.arguments.fill_in(tensors)
            keys, back = self._keys.get(id(operation), ({}, {}))
            outputs = self.copy(operation)(*(rekeyed(each, keys) for each in arguments), **keywords)
            for old, new in zip(node.outputs, tree.flatten(rekeyed(outputs, back)), strict=True):
                tensors[id(old)] = new
        inputs, input_keys = self._structure(keras_private.inputs_struct(model), tensors)
        outputs, output_keys = self._structure(keras_private.outputs_struct(model), tensors)
        self._keys[id(model)] = input_keys, {new: old for old, new in output_keys.items()}
        with warnings.catch_warnings():  # of keys that differ from the inputs' names, as they did in the original
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
                f"{self._place(layer)}: its function uses {', '.join(shared)} without tracking it, so that a copy "
                "would share its weights; make it a layer that has them as attributes"
            )

    def _configured(self, layer: Any) -> Any:
        name = self._name(layer)
        for function in live_lambdas(layer).values():
            self._refuse_shared(layer, function)
        try:
            copy = carries(layer, name)
        except Exception as error:  # whatever the class of a user raises
            self.faults.append(
                f"{self._place(layer)}: {type(layer).__name__} cannot be rebuilt from its configuration; "
                f"{advice(layer, error)} ({type(error).__name__}: {cause(error)})"
            )
            return None
        if copy.name != name and id(layer) in self.renamed and id(layer) in self._places:
            self.faults.append(f"{self._place(layer)}: its class drops the name; {advice(layer)}")
        if layer.built and not copy.built:
            born_with(copy, layer, self.made)
        return copy

    def _structure(self, struct: Any, tensors: Mapping[int, Any]) -> tuple[Any, dict[str, str]]:
        """Return a graph's inputs or outputs made anew, and which of their keys go with the names they stood for."""
        made = tree.map_structure(lambda tensor: tensors[id(tensor)], struct)
        keys: dict[str, str] = {}
        if isinstance(struct, Mapping):
            for key, tensor in struct.items():
                if isinstance(tensor, keras.KerasTensor) and key == keras_private.source(tensor).name:
                    keys[key] = self.renamed.get(id(keras_private.source(tensor)), key)
        return rekeyed(made, keys), keys

    def _name(self, layer: Any) -> str:
        """Return the name to be born with; one that Keras would refuse is put right at the end."""
        name = self.renamed.get(id(layer), layer.name)
        return name if isinstance(name, str) and "/" not in name else names.sanitized(name) or "layer"

    def _place(self, layer: Any) -> str:
        return self._places.get(id(layer), f"the model {layer.name!r}")


def in_order(model: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (node, operation) such that inputs come first and the calls of one operation stay in their order."""
    every = keras_private.nodes(model)
    place = {id(node): index for index, (node, _, _) in enumerate(every)}
    called = {(id(operation), call): index for index, (_, operation, call) in enumerate(every)}
    waiting = [0] * len(every)
    followers: list[list[int]] = [[] for _ in every]
    for index, (node, operation, call) in enumerate(every):
        before = [place[id(parent)] for parent in node.parent_nodes if id(parent) in place]
        if call:
            before.append(called[id(operation), call - 1])
        waiting[index] = len(before)
        for each in before:
            followers[each].append(index)
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
    """Return a dictionary under other keys, anything else as it is."""
    if not keys or not isinstance(value, dict):
        return value
    return {keys.get(key, key): each for key, each in value.items()}


def _build(model: Any, copy: Any) -> None:
    """Build a copy whose class builds itself, as the original was; a graph is built already."""
    config = model.get_build_config()
    if not config or copy.built:
        return
    if not model.weights:  # `model.build(shape)` of a class without `build` makes nothing, and says that it is built
        copy.built = model.built
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns where it could not; `paired` finds what is missing
        copy.build_from_config(config)
    copy.built = model.built


def paired(model: Any, copy: Any, entries: list[Entry], copier: Copier) -> list[tuple[Any, Any]]:
    """Return (layer, its copy) in the order of the walk; what a class made for itself is paired by its place.

    Raises:
        RebuildError: when the copy has not the layers and variables of the original.
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
            what = "not there after rebuilding" if new is None else f"became a {type(new).__name__}"
            problems.append(f"{entry.name}: {what}")
            break
        if isinstance(new, keras.Layer) and entry.layer.built:
            _build(entry.layer, new)  # built by itself, in a model that is not
        before, after = _shapes(entry.layer), _shapes(new)
        if before != after:
            problems.append(f"{entry.name}: has variables {_listed(before)}, after rebuilding {_listed(after)}")
    if not problems and len(walk(copy)) != len(entries):
        problems.append(f"{len(entries)} layers became {len(walk(copy))}")
    if _shapes(model) != _shapes(copy):
        problems.append(f"the model itself: has variables {_listed(_shapes(model))}, not so after rebuilding")
    if problems:
        problems.append(
            "what a class makes only when it is called needs a build method that makes it; what is attached to a "
            "model from outside needs a place in its graph"
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
    """Return the error that tells all that stands in the way of a copy."""
    head = f"{model.name!r} cannot be copied:"
    return RebuildError("\n".join([head, *(f"  {fault}" for fault in faults)]))
