"""Names in the HDF5 files of Keras: `.weights.h5`, the weights inside `.keras`, and the older `.h5`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from models import names
from models.formats.errors import FileFormatError
from models.formats.hdf5 import Contents, read_contents
from models.formats.table import Array, Table, of_arrays, of_config

_VARS = "vars"


def read_weights_table(path: Path) -> Table:
    """Return the table of a `.weights.h5` file; layers are named as since keras 3.6, whose groups carry names.

    Raises:
        FileFormatError: as `models.formats.hdf5.read_contents`.
    """
    arrays, classes = arrays_by_name(read_contents(path))
    return of_arrays(Path(path).name, arrays, classes)


def read_legacy_table(path: Path) -> Table:
    """Return the table of an `.h5` file of Keras 2 or of Keras 3's `save("x.h5")`, with or without configuration.

    Raises:
        FileFormatError: as `models.formats.hdf5.read_contents`, and for a configuration that is no JSON.
    """
    contents = read_contents(path)
    if any(part in contents.attributes.get("", {}) for part in ("layer_names", "layer_names0", "model_config")):
        arrays = _legacy_arrays(contents)
        text = contents.attributes.get("", {}).get("model_config")
        if not isinstance(text, str):
            return of_arrays(Path(path).name, arrays)
        try:
            listed = {item.name for item in of_config(json.loads(text)).layers}
            return of_config(json.loads(text), [_rehomed(array, listed) for array in arrays])
        except (ValueError, RecursionError) as error:
            raise FileFormatError(f"{path}: its configuration is no JSON ({error})") from None
    return read_weights_table(path)


def arrays_by_name(contents: Contents) -> tuple[list[Array], dict[str, str]]:
    """Return the arrays under their layers' names, and each layer's class as far as its group tells.

    A group `layers/dense_1/vars` has the attribute `name`; a group without one stands under its own path. Variables
    have numbers there, and stay numbers: `stem/0`.
    """
    given = {
        names.split(path)[0]: texts["name"]
        for path, texts in contents.attributes.items()
        if names.split(path)[1] == _VARS and isinstance(texts.get("name"), str)
    }
    classes: dict[str, str] = {}
    for group in given:
        qualified = _qualified(group, given)
        if qualified and group.partition("/")[0] != "optimizer":
            above, own = names.split(group)
            listed = bool(above) and above not in given  # in a list, not an attribute of a layer
            classes[qualified] = re.sub(r"_[0-9]+$", "", own) if listed else names.UNKNOWN_CLASS
    arrays = []
    for path, (shape, dtype) in contents.datasets.items():
        holder, _, index = path.rpartition("/")
        group, _, kind = holder.rpartition("/")
        if kind != _VARS and holder != _VARS:
            continue
        if path.partition("/")[0] != "optimizer":
            arrays.append(Array(names.join(_qualified(group, given), index), shape, dtype))
    return arrays, classes


def _qualified(group: str, given: Mapping[str, str]) -> str:
    """Return the names of the layers on the way to a group; steps between them (`layers`, attributes) are none."""
    parts = group.split("/") if group else []
    found = [given[path] for depth in range(len(parts)) if (path := "/".join(parts[: depth + 1])) in given]
    return names.join(*found) if found else group


def _rehomed(array: Array, layers: set[str]) -> Array:
    """Return an array under its layer; an older file leaves out all containers but the outermost."""
    container, own = names.split(array.name)
    top, _, inner = container.partition(names.SEPARATOR)
    if container in layers or not inner:
        return array
    deeper = [name for name in layers if name.startswith(f"{top}/") and name.endswith(f"/{inner}")]
    return replace(array, name=names.join(deeper[0], own)) if len(deeper) == 1 else array


def _legacy_arrays(contents: Contents) -> list[Array]:
    arrays = []
    for path, (shape, dtype) in contents.datasets.items():
        parts = path.removeprefix("model_weights/").split("/")
        if parts[0] in ("optimizer_weights", "top_level_model_weights"):
            continue
        layer, inner = parts[0], parts[1:]
        inner = inner[1:] if inner and inner[0] == layer else inner
        arrays.append(Array(names.join(layer, *inner).removesuffix(":0"), shape, dtype))
    return arrays
