"""Arrays by name in Keras' HDF5 files: `.weights.h5`, the weights inside `.keras`, and the older `.h5`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nameplate.errors import FileFormatError
from nameplate.formats import keras_variables, limits
from nameplate.formats.arrays import Arrays
from nameplate.formats.hdf5 import Contents, Hdf5File, read_contents
from nameplate.formats.name_table import Array, NameTable, holding_class, of_arrays, of_config
from nameplate.naming import names

_VARS = "vars"
_NO_LAYERS = ("optimizer", "optimizer_weights")
_OF_THE_MODEL = "top_level_model_weights"  # where Keras 3 keeps the model's own variables
_PARTS = frozenset(["query", "key", "value", "attention_output"])


def read_weights_table(path: Path) -> NameTable:
    """Return the table of a `.weights.h5` file; since keras 3.6 its groups carry the names of the layers.

    Raises:
        FileFormatError: as `nameplate.formats.hdf5.read_contents`.
    """
    return of_arrays(Path(path).name, *arrays_by_name(read_contents(path)))


def read_legacy_table(path: Path) -> NameTable:
    """Return the table of an `.h5` file of Keras 2 or of Keras 3's `save("x.h5")`, with or without configuration.

    Raises:
        FileFormatError: as `nameplate.formats.hdf5.read_contents`, and for a configuration that is not JSON.
    """
    return _legacy_table(path, read_contents(path))


def open_weights_file(path: Path) -> Arrays:
    """Open a `.weights.h5` file by name; the caller closes it.

    Raises:
        FileFormatError: as `read_weights_table`.
    """
    file = Hdf5File(path)
    table = of_arrays(Path(path).name, *arrays_by_name(file.contents))
    unnamed = not has_names(file.contents)
    return Arrays(table.arrays, file.read, path=path, format=".weights.h5", close=file.close, unnamed=unnamed)


def open_legacy(path: Path) -> Arrays:
    """Open the weights of an `.h5` file of Keras 2 or 3, a whole model or weights only; the caller closes it.

    Raises:
        FileFormatError: as `read_legacy_table`.
    """
    file = Hdf5File(path)
    try:
        table = _legacy_table(path, file.contents)
        unnamed = not _is_legacy(file.contents) and not has_names(file.contents)
        return Arrays(table.arrays, file.read, path=path, format=".h5", close=file.close, unnamed=unnamed)
    except BaseException:
        file.close()
        raise


def legacy_config(path: Path) -> Mapping[str, Any] | None:
    """Return the configuration of the model in an `.h5` file, None for weights only.

    Raises:
        FileFormatError: as `read_legacy_table`.
    """
    return _config(path, read_contents(path))


def has_names(contents: Contents) -> bool:
    """Return whether the groups of a Keras 3 weights file carry layer names, or there is nothing to name."""
    holders = {names.split(path)[0] for path in contents.datasets if path.partition("/")[0] not in _NO_LAYERS}
    return not holders or any("name" in contents.attributes.get(holder, {}) for holder in holders)


def _is_legacy(contents: Contents) -> bool:
    marks = ("layer_names", "layer_names0", "model_config")
    tops = [contents.attributes.get(path, {}) for path in ("", "model_weights")]
    return any(mark in texts for mark in marks for texts in tops)


def _legacy_table(path: Path, contents: Contents) -> NameTable:
    if not _is_legacy(contents):
        return of_arrays(Path(path).name, *arrays_by_name(contents))
    arrays = _legacy_arrays(contents)
    config = _config(path, contents)
    if config is None:
        return of_arrays(Path(path).name, arrays)
    listed = {item.name: item.classes[0] for item in of_config(config).layers}
    return of_config(config, [_rehomed(array, listed) for array in arrays])


def _config(path: Path, contents: Contents) -> Mapping[str, Any] | None:
    text = contents.attributes.get("", {}).get("model_config")
    if not isinstance(text, str):
        return None
    config = limits.parsed(text, f"{path}: its configuration")
    if not isinstance(config, Mapping):
        raise FileFormatError(f"{path}: its configuration is not a JSON object")
    return config


def arrays_by_name(contents: Contents) -> tuple[list[Array], dict[str, str]]:
    """Return the arrays under their layers' names, and the class of each layer whose group reveals it.

    A group `layers/dense_1/vars` has the layer's name as the attribute `name`; a group without one keeps its path as
    the name. Variables are numbered in the file and stay numbers here: `stem/0`.
    """
    given = {
        names.split(path)[0]: texts["name"]
        for path, texts in contents.attributes.items()
        if names.split(path)[1] == _VARS and isinstance(texts.get("name"), str)
    }
    attributes: dict[str, dict[str, str]] = {}
    for group, own in given.items():
        attributes.setdefault(names.split(group)[0], {})[names.split(group)[1]] = own
    classes: dict[str, str] = {}
    for group in given:
        qualified = _qualified(group, given)
        if qualified and group.partition("/")[0] != "optimizer":
            above, own = names.split(group)
            listed = bool(above) and above not in given  # the layer is in a list, not an attribute of another layer
            classes[qualified] = (
                re.sub(r"_[0-9]+$", "", own) if listed else holding_class(given[group], attributes.get(group, {}))
            )
    arrays = []
    for path, (shape, dtype) in contents.datasets.items():
        holder, _, index = path.rpartition("/")
        group, _, kind = holder.rpartition("/")
        if kind != _VARS and holder != _VARS:
            continue
        if path.partition("/")[0] not in _NO_LAYERS:
            arrays.append(Array(names.join(_qualified(group, given), index), shape, dtype, path))
    return arrays, classes


def _qualified(group: str, given: Mapping[str, str]) -> str:
    """Return the joined names of the layers on the path to a group, without `layers` and attributes in between."""
    parts = group.split("/") if group else []
    layers = [given[path] for depth in range(len(parts)) if (path := "/".join(parts[: depth + 1])) in given]
    return names.join(*layers) if layers else group


def _rehomed(array: Array, layers: Mapping[str, str]) -> Array:
    """Return an array under its layer; older files leave out every container but the outermost.

    Where the outermost is a Keras layer that holds no others, the parts in between are a TensorFlow 1 graph scope.
    """
    container, own = names.split(array.name)
    top, _, inner = container.partition(names.SEPARATOR)
    if container in layers or not inner:
        return array
    deeper = [name for name in layers if name.startswith(f"{top}/") and name.endswith(f"/{inner}")]
    if len(deeper) == 1:
        return replace(array, name=names.join(deeper[0], own))
    word = names.snake(layers.get(top, ""))
    leaf = word in names.KERAS_WORDS and not any(name.startswith(f"{top}/") for name in layers)
    scope = not _is_part(inner) or keras_variables.has_no_parts(word)
    return replace(array, name=names.join(top, own)) if leaf and scope else array


def _is_part(inner: str) -> bool:
    """Return whether a Keras layer creates this part itself, so that no configuration lists it."""
    last = names.split(inner)[1]
    return re.sub(r"_[0-9]+$", "", last) in names.KERAS_WORDS or last in _PARTS


def _as_keras_3(array: Array, others: set[str]) -> Array:
    """Return an array under its Keras 3 name: the kernel of a depthwise convolution was called `depthwise_kernel`."""
    layer, own = names.split(array.name)
    if own == "depthwise_kernel" and names.join(layer, "pointwise_kernel") not in others:
        return replace(array, name=names.join(layer, "kernel"))
    return array


def _legacy_arrays(contents: Contents) -> list[Array]:
    arrays = []
    for path, (shape, dtype) in contents.datasets.items():
        parts = path.removeprefix("model_weights/").split("/")
        if parts[0] in _NO_LAYERS:
            continue
        if parts[0] == _OF_THE_MODEL:
            arrays.append(Array(parts[-1].removesuffix(":0"), shape, dtype, path))
            continue
        layer, inner = parts[0], parts[1:]
        if layer in inner[:-1]:  # a variable's path, which begins with the model's name in a Sequential of Keras 3
            inner = inner[inner.index(layer) + 1 :]
        arrays.append(Array(names.join(layer, *inner).removesuffix(":0"), shape, dtype, path))
    known = {array.name for array in arrays}
    return [_as_keras_3(array, known) for array in arrays]
