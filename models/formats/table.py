"""The layers and variables that a file names: read as data, nothing in the file is executed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from models import names
from models.policy import Kind, Named


@dataclass(frozen=True)
class Array:
    """A variable in a file."""

    name: str  # qualified
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Table:
    """What a file says about names: its layers, containers first, and its arrays."""

    model: str
    layers: list[Named]
    arrays: list[Array] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)

    def arrays_of(self, layer: str) -> list[Array]:
        """Return the arrays of one layer itself."""
        return self._by_layer().get(layer, [])

    def _by_layer(self) -> dict[str, list[Array]]:
        known = {item.name for item in self.layers}
        found: dict[str, list[Array]] = {}
        for array in self.arrays:
            found.setdefault(owner(array.name, known), []).append(array)
        return found


def owner(variable: str, layers: set[str]) -> str:
    """Return the innermost of these layers that a variable lies in, empty for the model itself."""
    container, _ = names.split(variable)
    while container and container not in layers:
        container, _ = names.split(container)
    return container


def of_config(
    config: Mapping[str, Any], arrays: Sequence[Array] = (), classes: Mapping[str, str] | None = None
) -> Table:
    """Return the table of a serialized model and its arrays; layers that only arrays know come after the others.

    Args:
        config: as `keras.saving.serialize_keras_object` gives it: `class_name`, `config`.
        arrays: the variables of the same file.
        classes: `{layer: class}` for layers that are in no configuration, where the file tells.
    """
    found: list[Named] = []
    inner = _inner(config)
    _add(found, _inside(config), parent=-1)
    _add_unlisted(found, arrays, classes or {})
    outputs = [str(each[0]) for each in _leaves(inner.get("output_layers", [])) if each]
    return Table(str(inner.get("name", "")), found, list(arrays), outputs)


def of_arrays(model: str, arrays: Sequence[Array], classes: Mapping[str, str] | None = None) -> Table:
    """Return the table of a file that holds arrays only: each array's container is a layer."""
    found: list[Named] = []
    _add_unlisted(found, arrays, classes or {})
    return Table(model, found, list(arrays))


def _add(found: list[Named], children: Sequence[tuple[str, str, Kind, Mapping[str, Any]]], *, parent: int) -> None:
    container = found[parent].name if parent >= 0 else ""
    taken = {own.casefold() for own, _, kind, _ in children if kind in (Kind.LAYER, Kind.INPUT)}
    for place, (given, class_name, kind, config) in enumerate(children):
        own = names.by_place(given, class_name, taken) if kind in (Kind.OPERATOR, Kind.PART) else given
        origin = names.join(container, str(place))
        found.append(Named(names.join(container, own), own, (class_name,), kind=kind, parent=parent, origin=origin))
        _add(found, _inside(config), parent=len(found) - 1)


def _inside(config: Mapping[str, Any]) -> list[tuple[str, str, Kind, Mapping[str, Any]]]:
    """Return (own name, class, kind, configuration) of the layers directly inside a serialized one."""
    inner = _inner(config)
    listed = inner.get("layers")
    if isinstance(listed, list):
        children = [_described(each) for each in listed if isinstance(each, Mapping)]
        if config.get("class_name") == "Sequential":  # its input is hidden unless it was given a name
            hidden = (Kind.INPUT,)
            children = [
                each for each in children if not (each[2] in hidden and names.is_automatic(each[0], "InputLayer"))
            ]
        return children
    wrapped = [inner[key] for key in ("layer", "backward_layer", "cell") if isinstance(inner.get(key), Mapping)]
    wrapped += [each for each in inner.get("cells", []) if isinstance(each, Mapping)] if "cells" in inner else []
    return [_part(each) for each in wrapped if "class_name" in each]


def _inner(config: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = config.get("config")
    return inner if isinstance(inner, Mapping) else {}


def _described(config: Mapping[str, Any]) -> tuple[str, str, Kind, Mapping[str, Any]]:
    name = str(_inner(config).get("name", config.get("name", "")))
    class_name = str(config.get("class_name", names.UNKNOWN_CLASS))
    kind = Kind.INPUT if class_name == "InputLayer" else Kind.LAYER
    if ".ops." in str(config.get("module", "")):
        kind = Kind.OPERATOR
    return name, class_name, kind, config


def _part(config: Mapping[str, Any]) -> tuple[str, str, Kind, Mapping[str, Any]]:
    name, class_name, kind, config = _described(config)
    return name, class_name, Kind.PART if names.is_automatic(name, class_name) else kind, config


def _add_unlisted(found: list[Named], arrays: Sequence[Array], classes: Mapping[str, str]) -> None:
    """Add the containers of arrays, and of the classes, that no configuration listed: what a class of code made."""
    places = {item.name: index for index, item in enumerate(found)}
    holders = dict.fromkeys([*classes, *(names.split(_without_state(array.name))[0] for array in arrays)])
    for holder in holders:
        parts = holder.split(names.SEPARATOR) if holder else []
        for depth in range(len(parts)):
            name = names.SEPARATOR.join(parts[: depth + 1])
            if name in places:
                continue
            parent = places.get(names.split(name)[0], -1)
            places[name] = len(found)
            inside_code = parent >= 0 and found[parent].classes[0] in _MAKING_PARTS
            kind = Kind.PART if inside_code else Kind.LAYER
            origin = names.join(names.split(name)[0], "?")
            found.append(
                Named(
                    name,
                    parts[depth],
                    (classes.get(name, names.UNKNOWN_CLASS),),
                    kind=kind,
                    parent=parent,
                    origin=origin,
                )
            )


def _without_state(variable: str) -> str:
    """Return a variable's name such that its container is its layer: a seed generator is none."""
    container, own = names.split(variable)
    return container if own == "state" and container else variable


def _leaves(struct: Any) -> list[list[Any]]:
    """Return each [layer, call, output] of a nested structure of tensors."""
    if isinstance(struct, Mapping):
        return [leaf for each in struct.values() for leaf in _leaves(each)]
    if not isinstance(struct, list) or not struct:
        return []
    if isinstance(struct[0], str):
        return [struct]
    return [leaf for each in struct for leaf in _leaves(each)]


# Layers of Keras whose parts Keras makes and names.
_MAKING_PARTS = frozenset(
    [
        "MultiHeadAttention",
        "GroupedQueryAttention",
        "LSTM",
        "GRU",
        "SimpleRNN",
        "ConvLSTM1D",
        "ConvLSTM2D",
        "ConvLSTM3D",
    ]
)
