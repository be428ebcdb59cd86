"""Names for the groups of a `.keras` file from before keras 3.6, called by class and counter: `layers/dense_1`.

Keras numbers the layers of a container class by class, in the container's order (saving/saving_lib.py,
`_save_container_state`, the same from 3.0 on). That order is the one of the configuration in the same file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from models import names
from models.formats.table import Array

_CONTAINER = "layers"
_WRAPPED = {"layer": "layer", "cell": "cell", "forward_layer": "layer", "backward_layer": "backward_layer"}


def named_by_config(config: Mapping[str, Any], arrays: Sequence[Array]) -> tuple[list[Array], bool]:
    """Return arrays under the names that a file's configuration has, and whether it has them all.

    What the configuration does not list, inside layers of the user's own, keeps the name of its place.
    """
    found = [_named(config, array.name) for array in arrays]
    renamed = [replace(array, name=name) for array, (name, _) in zip(arrays, found, strict=True)]
    return renamed, all(known for _, known in found)


def _named(config: Mapping[str, Any], place: str) -> tuple[str, bool]:
    """Return the name of a place in the file, and whether the configuration tells it to the last layer."""
    parts = place.split(names.SEPARATOR)
    own: list[str] = []
    while len(parts) > 1:
        if parts[0] == _CONTAINER and (child := _counted(config).get(parts[1])):
            config, parts = child, parts[2:]
        elif isinstance(child := _inner(config).get(_WRAPPED.get(parts[0], "")), Mapping):
            config, parts = child, parts[1:]
        else:
            break
        own.append(str(_inner(config).get("name", config.get("name", ""))))
    return names.join(*own, *parts), bool(own) and _CONTAINER not in parts


def _counted(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the layers of a container by the words that Keras counts up for them."""
    found: dict[str, Mapping[str, Any]] = {}
    counts: dict[str, int] = {}
    listed = _inner(config).get("layers")
    for layer in listed if isinstance(listed, list) else ():
        if isinstance(layer, Mapping):
            word = names.snake(str(layer.get("class_name", "")))
            count = counts.get(word, 0)
            found[f"{word}_{count}" if count else word] = layer
            counts[word] = count + 1
    return found


def _inner(config: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = config.get("config")
    return inner if isinstance(inner, Mapping) else {}
