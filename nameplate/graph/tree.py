"""Walking a Keras model: every layer and every variable under one qualified name.

Names come from where a layer is found, not from `variable.path`, which leaves out containers of functional
models and counts seed generators up by process. A layer that is used in several places is named by the
first, and `Entry.sites` has them all. What nobody can name (operators such as `a + b`, what a layer of
Keras makes for itself, what a wrapper wraps) is named by its place as long as its name is one that Keras
made up, so that it is the same in every process.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from nameplate.errors import NameplateError
from nameplate.graph import explicit_names, keras_private
from nameplate.naming import names
from nameplate.naming.policy import Named, NameKind, NamingError


@dataclass(eq=False)
class Entry:
    """One layer in its first place in the tree."""

    name: str  # qualified
    own: str
    layer: Any  # a keras.Layer, or the Operation of an operator
    kind: NameKind
    parent: int  # place of the container in the walk; -1 is the model itself
    origin: str  # container and place among what is directly in it, as head/1
    sites: list[str] = field(default_factory=list)  # every place, the first included

    @property
    def place(self) -> int:
        """Place among what `direct` returns for the container."""
        return int(names.split(self.origin)[1])


def layers(model: keras.Model) -> dict[str, keras.Layer]:
    """Return `{qualified name: layer}` for the whole tree in build order, containers first.

    Raises:
        NamingError: when two layers have the same qualified name; it has both places.
    """
    require_model(model)
    entries = walk(model)
    _refuse_duplicate_layers(model, entries)
    return {entry.name: entry.layer for entry in entries}


def variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Return `{qualified name: variable}`: every weight and every seed generator's state once, no metrics.

    A variable that several layers hold is named by the first. A seed generator stands under its layer by
    the name of its attribute: `drop/seed_generator/state`.

    Raises:
        NamingError: when two variables have the same qualified name.
    """
    return {name: variable for name, variable, _ in owned_variables(model)}


def owned_variables(model: keras.Model) -> list[tuple[str, keras.Variable, str]]:
    """Return (qualified name, variable, qualified name of its layer); the last is empty for the model's own.

    Raises:
        NamingError: when two variables have the same qualified name.
    """
    found: list[tuple[str, Any, str]] = []
    seen: set[int] = set()
    for owner, _, held in every_holding(model):
        for key, variable in held:
            if id(variable) not in seen:
                seen.add(id(variable))
                found.append((names.join(owner, key), variable, owner))
    if len({name for name, _, _ in found}) < len(found):
        _refuse_duplicate_layers(model, walk(model))  # which is why, unless one layer has two of one name
    _refuse_duplicates(model, [(name, f"of {owner or 'the model itself'}") for name, _, owner in found], "variable")
    return found


def every_holding(model: keras.Model) -> Iterator[tuple[str, Any, list[tuple[str, Any]]]]:
    """Yield (qualified name, layer, its own variables by key), the model first; what is shared comes each time."""
    for owner, layer in _holders(model):
        yield owner, layer, [*_own_variables(layer), *_seed_states(layer)]


def seeds(model: keras.Model) -> dict[str, keras.random.SeedGenerator]:
    """Return `{qualified name: seed generator}`; its state in `variables` has `/state` behind."""
    found: dict[str, Any] = {}
    seen: set[int] = set()
    for owner, layer in _holders(model):
        for key, generator in _seed_generators(layer):
            if id(generator) not in seen:
                seen.add(id(generator))
                found[names.join(owner, key)] = generator
    return found


def layer(model: keras.Model, name: str) -> keras.Layer:
    """Return one layer by its qualified name.

    Raises:
        NameplateError: for a name that no layer has, with the nearest.
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
    """Refuse what is no model.

    Raises:
        NameplateError: with what it is instead.
    """
    if not isinstance(model, keras.Model):
        raise NameplateError(f"a keras.Model is needed, not {model!r:.80} ({type(model).__name__})")


def require_built(model: keras.Model) -> None:
    """Refuse a model that has no weights yet.

    Raises:
        NameplateError: with what to do; and for what is no model.
    """
    require_model(model)
    empty = not owned_variables(model) and not all(_built(entry.layer) for entry in walk(model))
    if empty or not model.built:
        raise NameplateError(
            f"{model.name!r} has not seen a shape, so that it has no weights yet: call it on data, or build it with "
            "build(input_shape), first"
        )


def walk(model: keras.Model) -> list[Entry]:
    """Return every layer of the tree once, containers before what they contain; names may occur twice.

    One pass: linear in the number of layers and of their uses.
    """
    entries: list[Entry] = []
    places: dict[int, int] = {id(model): -1}
    stack: list[tuple[int, Iterator[tuple[str, Any, NameKind, str]]]] = [(-1, _children(model))]
    while stack:
        parent, children = stack[-1]
        found = next(children, None)
        if found is None:
            stack.pop()
            continue
        own, child, kind, place = found
        container = entries[parent].name if parent >= 0 else ""
        site = names.join(container, place)
        if id(child) in places:
            if places[id(child)] >= 0:
                entries[places[id(child)]].sites.append(site)
            continue
        places[id(child)] = len(entries)
        entries.append(Entry(names.join(container, own), own, child, kind, parent, site, [site]))
        stack.append((len(entries) - 1, _children(child)))
    return entries


def named(entries: Sequence[Entry]) -> list[Named]:
    """Return a walk as a policy sees it."""
    weighty = [keras_private.has_state(entry.layer) or not _built(entry.layer) for entry in entries]
    classes = {kind: _classes(kind) for kind in {type(entry.layer) for entry in entries}}
    for index in range(len(entries) - 1, -1, -1):  # children come after their containers
        if weighty[index] and entries[index].parent >= 0:
            weighty[entries[index].parent] = True
    return [
        Named(
            name=entry.name,
            own=entry.own,
            classes=classes[type(entry.layer)],
            kind=entry.kind,
            weightless=not weight,
            parent=entry.parent,
            origin=entry.origin,
            is_text=isinstance(entry.layer.name, str),
            given=explicit_names.has_given_name(entry.layer),
        )
        for entry, weight in zip(entries, weighty, strict=True)
    ]


def output_names(model: keras.Model) -> list[str]:
    """Return the names of a model's outputs, as losses and metrics are keyed: by dictionary key first."""
    struct = keras_private.outputs_struct(model)
    if isinstance(struct, Mapping):
        return [str(key) for key in struct]
    return list(getattr(model, "output_names", None) or [])


def direct(container: Any) -> list[Any]:
    """Return what lies directly in a layer, in the order of its graph or of its attributes."""
    if isinstance(container, keras.Sequential):
        # Keras hides the input of a Sequential and makes up its name; one that was given a name counts.
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
    """Yield (own name, child, kind, place) for what lies directly in a layer."""
    found = [(str(child.name), child, _kind(container, child)) for child in direct(container)]
    taken = {own.casefold() for own, _, kind in found if kind in (NameKind.LAYER, NameKind.INPUT)}
    for place, (own, child, kind) in enumerate(found):
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
    """Yield (qualified name, layer) for all that can hold a variable: the model itself, then the tree."""
    yield "", model
    for entry in walk(model):
        yield entry.name, entry.layer


def _own_variables(layer: Any) -> list[tuple[str, Any]]:
    """Return (key, variable) of a layer itself.

    One whose name Keras made up, or that occurs twice, takes the name of its attribute.
    """
    held = keras_private.own_variables(layer)
    given = [variable.name for variable in held]
    vague = [names.is_automatic(name, "Variable") or given.count(name) > 1 for name in given]
    if not any(vague):
        return list(zip(given, held, strict=True))
    attributes = _attributes(layer)
    numbers: dict[str, int] = defaultdict(int)
    keyed = []
    for name, variable, unclear in zip(given, held, vague, strict=True):
        key = attributes.get(id(variable), "") if unclear else name
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
    return [(attributes.get(id(each)) or f"seed_generator_{index}", each) for index, each in enumerate(generators)]


def _seed_states(layer: Any) -> list[tuple[str, Any]]:
    return [(names.join(key, "state"), generator.state) for key, generator in _seed_generators(layer)]


def _attributes(layer: Any) -> dict[int, str]:
    """Return `{id of a value: its attribute's name}`; an element of a list or dictionary adds its key."""
    found: dict[int, str] = {}
    for key, value in vars(layer).items():
        if key in keras_private.TRACKING_LISTS or key.startswith("_self_"):
            continue
        bare = key.lstrip("_")
        found.setdefault(id(value), bare)
        if isinstance(value, list | tuple):
            for index, element in enumerate(value):
                found.setdefault(id(element), f"{bare}_{index}")
        elif isinstance(value, dict):
            for inner, element in value.items():
                found.setdefault(id(element), f"{bare}_{names.sanitized(inner)}")
    return found


def _classes(kind: type) -> tuple[str, ...]:
    return tuple(each.__name__ for each in kind.__mro__ if each is not object)


def _built(layer: Any) -> bool:
    return bool(getattr(layer, "built", True))


def _inside(name: str, known: Sequence[str]) -> str:
    """Return where layers of this own name are, for someone who left out the containers."""
    inside = [other for other in known if names.split(other)[1] == name]
    return f" It is inside: {', '.join(inside[:3])}." if inside else ""


def _refuse_duplicate_layers(model: Any, entries: Sequence[Entry]) -> None:
    """Refuse layers of one name; what lies inside them is left out, since it is told by its container."""
    count = Counter(entry.name for entry in entries)
    told: list[Entry] = []
    inside: set[int] = set()
    for index, entry in enumerate(entries):
        if entry.parent in inside or (entry.parent >= 0 and count[entries[entry.parent].name] > 1):
            inside.add(index)
        else:
            told.append(entry)
    _refuse_duplicates(model, [(entry.name, entry.origin) for entry in told], "layer")


def _refuse_duplicates(model: Any, found: Sequence[tuple[str, str]], what: str) -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for name, origin in found:
        places[name].append(origin)
    twice = {name: origins for name, origins in places.items() if len(origins) > 1}
    if twice:
        lines = [f"  {name}   used {len(origins)} times: {', '.join(origins)}" for name, origins in twice.items()]
        head = f"{len(twice)} {what} name{'s' * (len(twice) != 1)} of {model.name!r} mean more than one {what}:"
        raise NamingError(
            "\n".join([head, *lines, "Rename them; nameplate.enforce(model, 'repair') gives names of their own."])
        )
