"""The tree of a Keras model: every layer and every variable under one qualified name.

A name is built from the containers that a layer is in, not from `variable.path`, which omits the containers of
functional models and numbers seed generators by process. A layer that is used in several places is named after the
first, and `Entry.sites` lists them all. Parts that a user cannot name (operators such as `a + b`, the sublayers that a
Keras layer creates, the layer inside a wrapper) are named by position while their name is one that Keras made up, so
that they have the same name in every process.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from nameplate.arguments import checked
from nameplate.errors import NameplateError
from nameplate.graph import explicit_names, keras_private
from nameplate.naming import names
from nameplate.naming.policy import Named, NameKind, NamingError


@dataclass(eq=False)
class Entry:
    """One layer at its first place in the tree."""

    name: str  # qualified
    own: str
    layer: Any  # a keras.Layer, or the Operation of an operator
    kind: NameKind
    parent: int  # index of the container in the walk; -1 is the model itself
    origin: str  # container, and index among its direct children, as head/1
    sites: list[str] = field(default_factory=list)  # every place in the tree, the first included

    @property
    def place(self) -> int:
        """Index among what `direct` returns for the container."""
        return int(names.split(self.origin)[1])


@checked
def layers(model: keras.Model) -> dict[str, keras.Layer]:
    """Return `{qualified name: layer}` for the whole tree in build order, containers before their contents.

    Args:
        model: any Keras model, built or not.

    Raises:
        NamingError: if two layers have the same qualified name, with the place of each.
    """
    require_model(model)
    entries = walk(model)
    _refuse_duplicate_layers(model, entries)
    return {entry.name: entry.layer for entry in entries}


@checked
def variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Return `{qualified name: variable}`: every weight and seed state once, without those of metrics.

    A variable that several layers share is named after the first. The state of a seed generator is named by the
    layer's attribute that holds the generator: `drop/seed_generator/state`.

    Args:
        model: any Keras model; one that is not built has no weights yet.

    Raises:
        NamingError: if two variables have the same qualified name.
    """
    return {name: variable for name, variable, _ in owned_variables(model)}


def owned_variables(model: keras.Model) -> list[tuple[str, keras.Variable, str]]:
    """Return (qualified name, variable, qualified name of its layer); the layer's name is empty for the model's own.

    Raises:
        NamingError: if two variables have the same qualified name.
    """
    owned: list[tuple[str, Any, str]] = []
    seen: set[int] = set()
    for owner, _, held in held_variables(model):
        for key, variable in held:
            if id(variable) not in seen:
                seen.add(id(variable))
                owned.append((names.join(owner, key), variable, owner))
    if len({name for name, _, _ in owned}) < len(owned):
        _refuse_duplicate_layers(model, walk(model))  # the usual cause; the other is one layer with two alike
    _refuse_duplicates(model, [(name, f"of {owner or 'the model itself'}") for name, _, owner in owned], "variable")
    return owned


def held_variables(model: keras.Model) -> Iterator[tuple[str, Any, list[tuple[str, Any]]]]:
    """Yield (qualified name, layer, its own (key, variable) pairs), the model first; shared variables are repeated."""
    for owner, layer in _holders(model):
        yield owner, layer, [*_own_variables(layer), *_seed_states(layer)]


def seeds(model: keras.Model) -> dict[str, keras.random.SeedGenerator]:
    """Return `{qualified name: seed generator}`; `variables` has its state under `<name>/state`."""
    generators: dict[str, Any] = {}
    seen: set[int] = set()
    for owner, layer in _holders(model):
        for key, generator in _seed_generators(layer):
            if id(generator) not in seen:
                seen.add(id(generator))
                generators[names.join(owner, key)] = generator
    return generators


@checked
def layer(model: keras.Model, name: str) -> keras.Layer:
    """Return one layer by its qualified name.

    Args:
        model: any Keras model.
        name: qualified, as in `layers(model)`: `backbone/stem_conv`.

    Raises:
        NameplateError: if no layer has the name, with the nearest name.
    """
    require_model(model)
    entries = walk(model)
    for entry in entries:
        if entry.name == name:
            return entry.layer
    known = [entry.name for entry in entries]
    hint = names.did_you_mean(str(name), known) or _inside(str(name), known)
    raise NameplateError(f"no layer {name!r} in {model.name!r}, which has {len(known)} layers.{hint}")


def require_model(model: object) -> None:
    """Refuse anything but a Keras model, or a layer that trains as one does: of a class mixed with Keras' trainer.

    Raises:
        NameplateError: with the value and its type.
    """
    if not isinstance(model, keras.Model) and not (isinstance(model, keras.Layer) and hasattr(model, "train_step")):
        raise NameplateError(f"a keras.Model is needed, not {model!r:.80} ({type(model).__name__})")


def require_built(model: keras.Model) -> None:
    """Refuse a model that is not built and so has no weights.

    Raises:
        NameplateError: with what to do; also for anything that is not a model.
    """
    require_model(model)
    empty = not owned_variables(model) and not all(_built(entry.layer) for entry in walk(model))
    if empty or not model.built:
        raise NameplateError(
            f"{model.name!r} is not built and has no weights yet: call it on data, or build it with "
            "build(input_shape), first"
        )


def walk(model: keras.Model) -> list[Entry]:
    """Return every layer of the tree once, containers before their contents; two may have the same name.

    Takes time linear in the number of layers and of their uses.
    """
    entries: list[Entry] = []
    index_of: dict[int, int] = {id(model): -1}
    stack: list[tuple[int, Iterator[tuple[str, Any, NameKind, str]]]] = [(-1, _children(model))]
    while stack:
        parent, children = stack[-1]
        following = next(children, None)
        if following is None:
            stack.pop()
            continue
        own, child, kind, place = following
        container = entries[parent].name if parent >= 0 else ""
        site = names.join(container, place)
        if id(child) in index_of:
            if index_of[id(child)] >= 0:
                entries[index_of[id(child)]].sites.append(site)
            continue
        index_of[id(child)] = len(entries)
        entries.append(Entry(names.join(container, own), own, child, kind, parent, site, [site]))
        stack.append((len(entries) - 1, _children(child)))
    return entries


def named(entries: Sequence[Entry]) -> list[Named]:
    """Return the entries of a walk in the form that a policy checks."""
    has_weights = [keras_private.has_state(entry.layer) or not _built(entry.layer) for entry in entries]
    classes = {kind: _classes(kind) for kind in {type(entry.layer) for entry in entries}}
    for index in range(len(entries) - 1, -1, -1):  # children come after their containers
        if has_weights[index] and entries[index].parent >= 0:
            has_weights[entries[index].parent] = True
    return [
        Named(
            name=entry.name,
            own=entry.own,
            classes=classes[type(entry.layer)],
            kind=entry.kind,
            weightless=not weighty,
            parent=entry.parent,
            origin=entry.origin,
            is_text=isinstance(entry.layer.name, str),
            given=explicit_names.has_given_name(entry.layer),
        )
        for entry, weighty in zip(entries, has_weights, strict=True)
    ]


def output_names(model: keras.Model) -> list[str]:
    """Return the names under which losses and metrics know a model's outputs: dictionary keys, if it has any."""
    struct = keras_private.outputs_struct(model)
    if isinstance(struct, Mapping):
        return [str(key) for key in struct]
    return list(getattr(model, "output_names", None) or [])


def direct(container: Any) -> list[Any]:
    """Return the direct children of a layer, in the order of its graph or else of its attributes."""
    if isinstance(container, keras.Sequential):
        # Keras hides the input layer of a Sequential and makes up its name; one that a user named is listed.
        return [
            child
            for child in keras_private.stacked(container)
            if not (isinstance(child, keras.layers.InputLayer) and names.is_automatic(child.name, "InputLayer"))
        ]
    if isinstance(container, keras_private.Functional):
        graph = list(keras_private.operations(container))
        known = {id(child) for child in graph}
        return graph + [child for child in keras_private.sublayers(container) if id(child) not in known]
    return list(keras_private.sublayers(container))


def _children(container: Any) -> Iterator[tuple[str, Any, NameKind, str]]:
    """Yield (own name, child, kind, index) for the direct children of a layer."""
    children = [(str(child.name), child, _kind(container, child)) for child in direct(container)]
    taken = {own.casefold() for own, _, kind in children if kind in (NameKind.LAYER, NameKind.INPUT)}
    for place, (own, child, kind) in enumerate(children):
        if kind in (NameKind.OPERATOR, NameKind.PART):
            own = names.renumbered(own, type(child).__name__, taken)
        yield own, child, kind, str(place)


def _kind(container: Any, child: Any) -> NameKind:
    if not isinstance(child, keras.Layer):
        return NameKind.OPERATOR
    if isinstance(child, keras.layers.InputLayer):
        return NameKind.INPUT
    if keras_private.makes_its_parts(container):
        return NameKind.PART
    wrapped = keras_private.takes_one_layer(container)
    return NameKind.PART if wrapped and names.is_automatic(str(child.name), type(child).__name__) else NameKind.LAYER


def _holders(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield (qualified name, layer) for everything that can hold a variable: the model itself, then its tree."""
    yield "", model
    for entry in walk(model):
        yield entry.name, entry.layer


def _own_variables(layer: Any) -> list[tuple[str, Any]]:
    """Return (key, variable) for the variables of a layer itself.

    The key is the variable's name, or the name of its attribute if Keras made up the name or it occurs twice.
    """
    held = keras_private.own_variables(layer)
    own_names = [variable.name for variable in held]
    ambiguous = [names.is_automatic(name, "Variable") or own_names.count(name) > 1 for name in own_names]
    if not any(ambiguous):
        return list(zip(own_names, held, strict=True))
    attributes = _attributes(layer)
    numbers: dict[str, int] = defaultdict(int)
    keyed = []
    for name, variable, is_ambiguous in zip(own_names, held, ambiguous, strict=True):
        key = attributes.get(id(variable), "") if is_ambiguous else name
        if not key:
            key = f"variable_{numbers['variable']}"
            numbers["variable"] += 1
        keyed.append((key, variable))
    return keyed


def _seed_generators(layer: Any) -> list[tuple[str, Any]]:
    generators = keras_private.seed_generators(layer)
    if not generators:
        return []
    attributes = _attributes(layer)
    return [
        (attributes.get(id(generator)) or f"seed_generator_{index}", generator)
        for index, generator in enumerate(generators)
    ]


def _seed_states(layer: Any) -> list[tuple[str, Any]]:
    return [(names.join(key, "state"), generator.state) for key, generator in _seed_generators(layer)]


def _attributes(layer: Any) -> dict[int, str]:
    """Return `{id(value): name of the attribute that holds it}`; elements of lists and dictionaries add their key."""
    attributes: dict[int, str] = {}
    for key, value in vars(layer).items():
        if key in keras_private.TRACKING_LISTS or key.startswith("_self_"):
            continue
        bare = key.lstrip("_")
        attributes.setdefault(id(value), bare)
        if isinstance(value, list | tuple):
            for index, element in enumerate(value):
                attributes.setdefault(id(element), f"{bare}_{index}")
        elif isinstance(value, dict):
            for inner, element in value.items():
                attributes.setdefault(id(element), f"{bare}_{names.sanitized(inner)}")
    return attributes


def _classes(kind: type) -> tuple[str, ...]:
    return tuple(base.__name__ for base in kind.__mro__ if base is not object)


def _built(layer: Any) -> bool:
    return bool(getattr(layer, "built", True))


def _inside(name: str, known: Sequence[str]) -> str:
    """Return a hint with the layers that have this own name, for a caller who omitted the containers."""
    inside = [other for other in known if names.split(other)[1] == name]
    return f" It is inside: {', '.join(inside[:3])}." if inside else ""


def _refuse_duplicate_layers(model: Any, entries: Sequence[Entry]) -> None:
    """Refuse layers with the same name; their contents are not listed, since the containers are."""
    count = Counter(entry.name for entry in entries)
    outermost: list[Entry] = []
    inside: set[int] = set()
    for index, entry in enumerate(entries):
        if entry.parent in inside or (entry.parent >= 0 and count[entries[entry.parent].name] > 1):
            inside.add(index)
        else:
            outermost.append(entry)
    _refuse_duplicates(model, [(entry.name, entry.origin) for entry in outermost], "layer")


def _refuse_duplicates(model: Any, named_parts: Sequence[tuple[str, str]], what: str) -> None:
    origins_of: dict[str, list[str]] = defaultdict(list)
    for name, origin in named_parts:
        origins_of[name].append(origin)
    twice = {name: origins for name, origins in origins_of.items() if len(origins) > 1}
    if twice:
        lines = [f"  {name}   used {len(origins)} times: {', '.join(origins)}" for name, origins in twice.items()]
        head = f"{len(twice)} {what} name{'s' * (len(twice) != 1)} of {model.name!r} mean more than one {what}:"
        advice = "Rename them; nameplate.enforce(model, 'repair') gives each a unique name."
        raise NamingError("\n".join([head, *lines, advice]))
