"""The layers and variables that a file names: read as data, nothing in the file is executed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nameplate.formats import keras_variables
from nameplate.naming import names
from nameplate.naming.policy import Named, NameKind

_Child = tuple[str, str, NameKind, Mapping[str, Any]]  # own name, class, kind, configuration


@dataclass(frozen=True)
class Array:
    """A variable in a file."""

    name: str  # qualified
    shape: tuple[int, ...]
    dtype: str
    place: str = ""  # where it lies in the file, in the file's own words

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class NameTable:
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
) -> NameTable:
    """Return the table of a serialized model and its arrays; layers that only arrays know come after the others.

    Args:
        config: as `keras.saving.serialize_keras_object` gives it: `class_name`, `config`.
        arrays: the variables of the same file.
        classes: `{layer: class}` for layers that are in no configuration, where the file tells.
    """
    inner = _inner(config)
    tree = _Tree()
    tree.add(_inside(config))
    tree.add_unlisted(arrays, classes or {})
    outputs = [str(each[0]) for each in _leaves(inner.get("output_layers", [])) if each]
    return NameTable(str(inner.get("name", "")), tree.layers, tree.arrays(arrays), outputs)


def of_arrays(model: str, arrays: Sequence[Array], classes: Mapping[str, str] | None = None) -> NameTable:
    """Return the table of a file that holds arrays only: each array's container is a layer."""
    tree = _Tree()
    tree.add_unlisted(arrays, classes or {})
    return NameTable(model, tree.layers, tree.arrays(arrays))


class _Tree:
    """Layers as they are found; `places` knows each by the name in the file, which may have Keras' counters."""

    def __init__(self) -> None:
        self.layers: list[Named] = []
        self._configs: list[Mapping[str, Any]] = []
        self.places: dict[str, int] = {}
        self._taken: dict[int, set[str]] = {}

    def add(self, children: Sequence[_Child], *, parent: int = -1, container: str = "") -> None:
        """Add layers of a configuration with all that is inside them."""
        given = {own.casefold() for own, _, kind, _ in children if kind in (NameKind.LAYER, NameKind.INPUT)}
        self._taken.setdefault(parent, set()).update(given)
        for place, (own, class_name, kind, config) in enumerate(children):
            index = self._append(own, class_name, kind, parent, str(place), config)
            name = names.join(container, own)
            self.places.setdefault(name, index)
            self.add(_inside(config), parent=index, container=name)

    def add_unlisted(self, arrays: Sequence[Array], classes: Mapping[str, str]) -> None:
        """Add the containers of arrays, and of the classes, that no configuration listed: what code made."""
        for holder in dict.fromkeys([*classes, *(names.split(_outside_seed(array.name))[0] for array in arrays)]):
            parts = holder.split(names.SEPARATOR) if holder else []
            for depth, own in enumerate(parts):
                name = names.join(*parts[: depth + 1])
                if name in self.places:
                    continue
                parent = self.places.get(names.join(*parts[:depth]), -1)
                class_name = classes.get(name, names.UNKNOWN_CLASS)
                self.places[name] = self._append(own, class_name, self._kind(parent, own, class_name), parent, "?")

    def arrays(self, found: Sequence[Array]) -> list[Array]:
        """Return arrays under the names that their layers have here, and their numbers as names where known."""
        placed = [self.placed(array) for array in found]
        numbers: dict[str, int] = {}
        for array in placed:
            layer, own = names.split(array.name)
            if own.isdigit():
                numbers[layer] = numbers.get(layer, 0) + 1
        places = {item.name: index for index, item in enumerate(self.layers)}
        first = {names.split(array.name)[0]: array.dtype for array in placed if names.split(array.name)[1] == "0"}
        known = {
            layer: self._variables(places.get(layer), count, first.get(layer, "")) for layer, count in numbers.items()
        }
        return [_named(array, known) for array in placed]

    def _variables(self, place: int | None, count: int, first: str) -> tuple[str, ...] | None:
        if place is None:
            return None
        item = self.layers[place]
        above = self.layers[item.parent].classes[0] if item.parent >= 0 else names.UNKNOWN_CLASS
        word = keras_variables.word(item.own, item.classes[0], above)
        return keras_variables.of_class(word, count, _inner(self._configs[place]) or None, first=first)

    def placed(self, array: Array) -> Array:
        """Return an array under the name that its layer has here."""
        parts = array.name.split(names.SEPARATOR)
        for depth in range(len(parts) - 1, 0, -1):
            index = self.places.get(names.join(*parts[:depth]))
            if index is not None:
                return replace(array, name=names.join(self.layers[index].name, *parts[depth:]))
        return array

    def _append(
        self,
        own: str,
        class_name: str,
        kind: NameKind,
        parent: int,
        place: str,
        config: Mapping[str, Any] | None = None,
    ) -> int:
        container = self.layers[parent].name if parent >= 0 else ""
        if kind in (NameKind.OPERATOR, NameKind.PART):
            own = names.renumbered(own, class_name, self._taken.setdefault(parent, set()))
        origin = names.join(container, place)
        self.layers.append(
            Named(names.join(container, own), own, (class_name,), kind=kind, parent=parent, origin=origin)
        )
        self._configs.append(config or {})
        return len(self.layers) - 1

    def _kind(self, parent: int, own: str, class_name: str) -> NameKind:
        above = names.snake(self.layers[parent].classes[0]) if parent >= 0 else ""
        wrapped = above in _WRAPPING and names.is_automatic(own, class_name)
        return NameKind.PART if wrapped or above in _MAKING_PARTS else NameKind.LAYER


def _named(array: Array, known: Mapping[str, tuple[str, ...] | None]) -> Array:
    layer, own = names.split(array.name)
    variables = known.get(layer)
    if not own.isdigit() or variables is None or int(own) >= len(variables):
        return array
    return replace(array, name=names.join(layer, variables[int(own)]))


def _inside(config: Mapping[str, Any]) -> list[_Child]:
    """Return (own name, class, kind, configuration) of the layers directly inside a serialized one."""
    inner = _inner(config)
    listed = inner.get("layers")
    if isinstance(listed, list):
        children = [_described(each) for each in listed if isinstance(each, Mapping)]
        if config.get("class_name") == "Sequential":  # its input is hidden unless it was given a name
            hidden = (NameKind.INPUT,)
            children = [
                each for each in children if not (each[2] in hidden and names.is_automatic(each[0], "InputLayer"))
            ]
        return children
    wrapped = [inner[key] for key in ("layer", "backward_layer", "cell") if isinstance(inner.get(key), Mapping)]
    cells = inner["cells"] if isinstance(inner.get("cells"), list) else []  # which their author made and can name
    given = [_described(each) for each in cells if isinstance(each, Mapping) and "class_name" in each]
    return [*(_part(each) for each in wrapped if "class_name" in each), *given]


def _inner(config: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = config.get("config")
    return inner if isinstance(inner, Mapping) else {}


def _described(config: Mapping[str, Any]) -> _Child:
    name = str(_inner(config).get("name", config.get("name", "")))
    class_name = str(config.get("class_name", names.UNKNOWN_CLASS))
    kind = NameKind.INPUT if class_name == "InputLayer" else NameKind.LAYER
    if ".ops." in str(config.get("module", "")) or _is_older_operator(config, name, class_name):
        kind = NameKind.OPERATOR
    return name, class_name, kind, config


def _is_older_operator(config: Mapping[str, Any], name: str, class_name: str) -> bool:
    """Tell whether an entry of an `.h5` file, which has no modules, is an operator: what no layer's has is missing."""
    if "module" in config or "registered_name" in config or class_name == "InputLayer":
        return False
    inner = _inner(config)
    return "name" in inner and "trainable" not in inner and names.is_automatic(name, class_name)


def holding_class(own: str, attributes: Mapping[str, str]) -> str:
    """Return the word of the class of Keras that holds other layers, where a file tells no class; else unknown.

    Args:
        own: the layer's name, which may be a word of Keras.
        attributes: `{attribute: name}` of the layers in it. They are those of Keras' own classes; a layer of a user's
            class with the same attributes cannot be told from them.
    """
    bare = re.sub(r"_[0-9]+$", "", own.removeprefix("forward_").removeprefix("backward_"))
    if bare in _MAKING_PARTS | _WRAPPING:
        return bare
    if "cell" in attributes:
        cell = re.sub(r"_cell(_[0-9]+)?$", "", attributes["cell"])
        return cell if cell in _MAKING_PARTS else "rnn"
    known = {"forward_layer": "bidirectional", "query_dense": "multi_head_attention"}
    known |= {"_query_dense": "grouped_query_attention", "layer": "wrapper"}
    return next((word for attribute, word in known.items() if attribute in attributes), names.UNKNOWN_CLASS)


def _part(config: Mapping[str, Any]) -> _Child:
    name, class_name, kind, config = _described(config)
    return name, class_name, NameKind.PART if names.is_automatic(name, class_name) else kind, config


def _outside_seed(variable: str) -> str:
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


# The words of Keras' layers whose parts Keras makes and names, and of those that wrap a layer of the caller's.
_MAKING_PARTS = frozenset(
    [
        "multi_head_attention",
        "grouped_query_attention",
        "lstm",
        "gru",
        "simple_rnn",
        "conv_lstm1d",
        "conv_lstm2d",
        "conv_lstm3d",
    ]
)
_WRAPPING = frozenset(["bidirectional", "time_distributed", "spectral_normalization", "rnn", "wrapper"])
