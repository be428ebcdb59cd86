"""The layers and variables that a file names, as data."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nameplate.formats import keras_variables
from nameplate.naming import names
from nameplate.naming import policy as policies
from nameplate.naming.policy import Named, NameKind, Policy, PolicyMode, Violation

_Child = tuple[str, str, NameKind, Mapping[str, Any]]  # own name, class, kind, configuration


@dataclass(frozen=True)
class Array:
    """A variable in a file."""

    name: str  # qualified
    shape: tuple[int, ...]
    dtype: str
    place: str = ""  # its address in the file, in the file's own terms

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class NameTable:
    """The names in a file: its layers, containers first, and its arrays."""

    model: str
    layers: list[Named]
    arrays: list[Array] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    model_class: str = ""  # empty in a file of weights, which does not name its model

    def violations(self, policy: Policy) -> list[Violation]:
        """Return every violation of a policy by the model's own name and by its layers; nothing under `off`.

        Who chose a name is unknown in a file, so its form decides.
        """
        if policy.mode is PolicyMode.off:
            return []
        made_up_for = "" if policy.automatic else self.model_class
        own = policies.model_name_violations(self.model, made_up_for=made_up_for) if self.model_class else []
        return own + policies.violations(policy, self.layers, outputs=self.outputs)

    def arrays_of(self, layer: str) -> list[Array]:
        """Return the arrays that belong to the layer itself, not to layers inside it."""
        return self._by_layer().get(layer, [])

    def _by_layer(self) -> dict[str, list[Array]]:
        known = {item.name for item in self.layers}
        by_layer: dict[str, list[Array]] = {}
        for array in self.arrays:
            by_layer.setdefault(owner(array.name, known), []).append(array)
        return by_layer


def owner(variable: str, layers: set[str]) -> str:
    """Return the innermost of `layers` that contains a variable, empty for the model itself."""
    container, _ = names.split(variable)
    while container and container not in layers:
        container, _ = names.split(container)
    return container


def of_config(
    config: Mapping[str, Any], arrays: Sequence[Array] = (), classes: Mapping[str, str] | None = None
) -> NameTable:
    """Return the table of a serialized model and its arrays; layers known only from arrays come last.

    Args:
        config: as from `keras.saving.serialize_keras_object`: `class_name`, `config`.
        arrays: the variables of the same file.
        classes: `{layer: class}` for layers outside the configuration, where the file has their classes.
    """
    inner = inner_config(config)
    tree = _Tree()
    tree.add(_children(config))
    tree.add_unlisted(arrays, classes or {})
    outputs = [str(leaf[0]) for leaf in _leaves(inner.get("output_layers", [])) if leaf]
    return NameTable(
        str(inner.get("name", "")),
        tree.layers,
        tree.arrays(arrays),
        outputs,
        model_class=str(config.get("class_name", "")) if "name" in inner else "",
    )


def of_arrays(model: str, arrays: Sequence[Array], classes: Mapping[str, str] | None = None) -> NameTable:
    """Return the table of a file with arrays only: every container of an array is a layer."""
    tree = _Tree()
    tree.add_unlisted(arrays, classes or {})
    return NameTable(model, tree.layers, tree.arrays(arrays))


class _Tree:
    """The layers found so far; `places` has the index of each by its name in the file, which may be a counted class."""

    def __init__(self) -> None:
        self.layers: list[Named] = []
        self._configs: list[Mapping[str, Any]] = []
        self.places: dict[str, int] = {}
        self._taken: dict[int, set[str]] = {}

    def add(self, children: Sequence[_Child], *, parent: int = -1, container: str = "") -> None:
        """Add layers of a configuration with everything inside them."""
        given = {own.casefold() for own, _, kind, _ in children if kind in (NameKind.LAYER, NameKind.INPUT)}
        self._taken.setdefault(parent, set()).update(given)
        for place, (own, class_name, kind, config) in enumerate(children):
            index = self._append(own, class_name, kind, parent, str(place), config)
            name = names.join(container, own)
            self.places.setdefault(name, index)
            self.add(_children(config), parent=index, container=name)

    def add_unlisted(self, arrays: Sequence[Array], classes: Mapping[str, str]) -> None:
        """Add the layers that arrays and `classes` mention and the configuration does not, since code created them."""
        for holder in dict.fromkeys([*classes, *(names.split(_outside_seed(array.name))[0] for array in arrays)]):
            parts = holder.split(names.SEPARATOR) if holder else []
            for depth, own in enumerate(parts):
                name = names.join(*parts[: depth + 1])
                if name in self.places:
                    continue
                parent = self.places.get(names.join(*parts[:depth]), -1)
                class_name = classes.get(name, names.UNKNOWN_CLASS)
                self.places[name] = self._append(own, class_name, self._kind(parent, own, class_name), parent, "?")

    def arrays(self, arrays: Sequence[Array]) -> list[Array]:
        """Return arrays under the names of their layers here, with variable names for numbers where known."""
        placed = [self.placed(array) for array in arrays]
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
        return keras_variables.of_class(word, count, inner_config(self._configs[place]) or None, first=first)

    def placed(self, array: Array) -> Array:
        """Return an array under the name of its layer here."""
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


def _children(config: Mapping[str, Any]) -> list[_Child]:
    """Return (own name, class, kind, configuration) of the layers directly inside a serialized one."""
    inner = inner_config(config)
    listed = inner.get("layers")
    if isinstance(listed, list):
        children = [_described(layer) for layer in listed if isinstance(layer, Mapping)]
        if config.get("class_name") == "Sequential":
            return [child for child in children if not _is_hidden_input(child)]
        return children
    wrapped = [inner[key] for key in ("layer", "backward_layer", "cell") if isinstance(inner.get(key), Mapping)]
    cells = inner["cells"] if isinstance(inner.get("cells"), list) else []  # the author created them and can name them
    given = [_described(cell) for cell in cells if isinstance(cell, Mapping) and "class_name" in cell]
    return [*(_part(layer) for layer in wrapped if "class_name" in layer), *given]


def _is_hidden_input(child: _Child) -> bool:
    """Return whether a layer of a Sequential is its input without a given name, which Keras does not show."""
    own, _, kind, _ = child
    return kind is NameKind.INPUT and names.is_automatic(own, "InputLayer")


def inner_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the constructor arguments in a serialized object, empty where there are none."""
    inner = config.get("config")
    return inner if isinstance(inner, Mapping) else {}


def _described(config: Mapping[str, Any]) -> _Child:
    name = str(inner_config(config).get("name", config.get("name", "")))
    class_name = str(config.get("class_name", names.UNKNOWN_CLASS))
    kind = NameKind.INPUT if class_name == "InputLayer" else NameKind.LAYER
    if ".ops." in str(config.get("module", "")) or _is_older_operator(config, name, class_name):
        kind = NameKind.OPERATOR
    return name, class_name, kind, config


def _is_older_operator(config: Mapping[str, Any], name: str, class_name: str) -> bool:
    """Return whether an entry of an `.h5` file, which has no modules, is an operator: it lacks what every layer has."""
    if "module" in config or "registered_name" in config or class_name == "InputLayer":
        return False
    inner = inner_config(config)
    return "name" in inner and "trainable" not in inner and names.is_automatic(name, class_name)


def holding_class(own: str, attributes: Mapping[str, str]) -> str:
    """Return the word of the Keras class of a layer that holds others, in a file without classes; else unknown.

    Args:
        own: the layer's name, which may be a word of Keras.
        attributes: `{attribute: name}` of the layers in it, which identify Keras' classes. A user's class with the same
            attributes cannot be distinguished from them.
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
    """Return a variable's name whose container is a layer: the state of a seed generator is given to its layer."""
    container, own = names.split(variable)
    return container if own == "state" and container else variable


def _leaves(struct: Any) -> list[list[Any]]:
    """Return each [layer, call, output] of a nested structure of tensors."""
    if isinstance(struct, Mapping):
        return [leaf for value in struct.values() for leaf in _leaves(value)]
    if not isinstance(struct, list) or not struct:
        return []
    if isinstance(struct[0], str):
        return [struct]
    return [leaf for item in struct for leaf in _leaves(item)]


# The words of Keras' layers that create and name parts of their own, and of those that wrap a layer of the caller.
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
