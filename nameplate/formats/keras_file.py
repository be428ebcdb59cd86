"""A `.keras` file: a zip archive of a configuration, the weights in HDF5, and assets; read by name and copied safely.

Before keras 3.6 the groups of the weights have no names but a class and a number, `layers/dense_1`. Keras numbers the
layers of a container class by class in the container's order (saving/saving_lib.py, `_save_container_state`, the same
since 3.0), which is the order of the configuration in the same file. So the configuration gives the names.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nameplate.checkpoint import dtypes
from nameplate.errors import FileFormatError
from nameplate.formats import limits
from nameplate.formats import zip_archive as archives
from nameplate.formats.arrays import Arrays
from nameplate.formats.hdf5 import Hdf5File
from nameplate.formats.keras_config import uncompiled
from nameplate.formats.keras_weights import arrays_by_name, has_names
from nameplate.formats.limits import budget_of
from nameplate.formats.name_table import Array, NameTable, inner_config, of_config
from nameplate.naming import names

CONFIG = "config.json"
METADATA = "metadata.json"
WEIGHTS = "model.weights.h5"
ASSETS = "assets/"
NAMES = "nameplate.json"  # written by `nameplate.save`: the names that a Keras configuration cannot hold

_LARGEST_ASSET = 1 << 30  # bytes
_CONTAINER = "layers"
_WRAPPED = {"layer": "layer", "cell": "cell", "forward_layer": "layer", "backward_layer": "backward_layer"}


def named_by_config(config: Mapping[str, Any], arrays: Sequence[Array]) -> tuple[list[Array], bool]:
    """Return arrays under the names in a file's configuration, and whether it names them all.

    Layers that the configuration does not list, inside a user's own classes, keep the name of their place.
    """
    named = [_named(config, array.name) for array in arrays]
    renamed = [replace(array, name=name) for array, (name, _) in zip(arrays, named, strict=True)]
    return renamed, all(known for _, known in named)


def _named(config: Mapping[str, Any], place: str) -> tuple[str, bool]:
    """Return the name of a place in the file, and whether the configuration names it down to the last layer."""
    parts = place.split(names.SEPARATOR)
    own: list[str] = []
    while len(parts) > 1:
        if parts[0] == _CONTAINER and (child := _counted(config).get(parts[1])):
            config, parts = child, parts[2:]
        elif isinstance(child := inner_config(config).get(_WRAPPED.get(parts[0], "")), Mapping):
            config, parts = child, parts[1:]
        else:
            break
        own.append(str(inner_config(config).get("name", config.get("name", ""))))
    return names.join(*own, *parts), bool(own) and _CONTAINER not in parts


def _counted(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the layers of a container by the numbered words of Keras, `dense_1`."""
    layers: dict[str, Mapping[str, Any]] = {}
    counts: dict[str, int] = {}
    listed = inner_config(config).get("layers")
    for layer in listed if isinstance(listed, list) else ():
        if isinstance(layer, Mapping):
            word = names.snake(str(layer.get("class_name", "")))
            count = counts.get(word, 0)
            layers[f"{word}_{count}" if count else word] = layer
            counts[word] = count + 1
    return layers


def read_keras_table(path: Path) -> NameTable:
    """Return the table of a `.keras` file.

    Raises:
        FileFormatError: when it is not such a file, would expand without bound, or its HDF5 part is refused.
    """
    with archives.opened(path, ".keras") as archive:
        config = read_config(archive, path)
        if WEIGHTS not in archive.namelist():
            return of_config(config)
        with open_part(archive, path) as part:
            return _table(config, part)[0]


def open_keras(path: Path) -> Arrays:
    """Open the weights of a `.keras` file by name; the caller closes them.

    Raises:
        FileFormatError: as `read_keras_table`.
    """
    with archives.opened(path, ".keras") as archive:
        config = read_config(archive, path)
        part = open_part(archive, path)
    table, unnamed = _table(config, part)
    return Arrays(table.arrays, part.read, path=path, format=".keras", close=part.close, unnamed=unnamed)


def _table(config: Mapping[str, Any], part: Hdf5File) -> tuple[NameTable, bool]:
    """Return the table of a file, and whether some of its arrays are named by place only."""
    arrays, classes = arrays_by_name(part.contents)
    if has_names(part.contents):
        return of_config(config, arrays, classes), False
    arrays, known = named_by_config(config, arrays)
    return of_config(config, arrays, classes), not known


def read_config(archive: zipfile.ZipFile, path: Path, member: str = CONFIG) -> Mapping[str, Any]:
    """Return a JSON object of the archive.

    Raises:
        FileFormatError: when it is missing, too large or not a JSON object.
    """
    if member not in archive.namelist():
        raise FileFormatError(f"{path} has no {member}; it is not a .keras file")
    text = archives.member(archive, member, path, largest=limits.LARGEST)
    config = limits.parsed(text, f"{path}: {member}")
    if not isinstance(config, Mapping):
        raise FileFormatError(f"{path}: {member} is not a JSON object")
    return config


def open_part(archive: zipfile.ZipFile, path: Path) -> Hdf5File:
    """Open the weights in an archive.

    Raises:
        FileFormatError: when there are no weights, or they are refused.
    """
    with tempfile.TemporaryDirectory(prefix="nameplate-") as folder:  # an open file needs no name
        copy = Path(folder) / "weights.h5"
        archives.copy_member(archive, WEIGHTS, path, copy)
        return Hdf5File(copy, budget=budget_of(path, label=f"{path}: {WEIGHTS}"))


def write_copy(source: Path, target: Path) -> None:
    """Write the configuration, weights and assets of a `.keras` file to a new file, value by value.

    Both archive and HDF5 file are read under limits and written from scratch, so that nothing of their structure
    survives.

    Raises:
        FileFormatError: as `read_keras_table`.
    """
    with archives.opened(source, ".keras") as archive, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as copy:
        for member in (CONFIG, METADATA):
            if member in archive.namelist():
                copy.writestr(member, json.dumps(uncompiled(read_config(archive, source, member))))
        for name in archive.namelist():
            if name.startswith(ASSETS) and not name.endswith("/"):
                copy.writestr(name, archives.member(archive, name, source, largest=_LARGEST_ASSET))
        part = target.with_name("part.weights.h5")
        with open_part(archive, source) as weights:
            _write_hdf5(part, weights)
        copy.write(part, WEIGHTS)
    part.unlink()


def _write_hdf5(path: Path, source: Hdf5File) -> None:
    """Write the groups, texts and arrays of an HDF5 file to a new one, without optimizer slots."""
    import h5py

    with h5py.File(path, "w") as file:
        for where, texts in source.contents.attributes.items():
            if where.partition("/")[0] != "optimizer":
                file.require_group(where or "/").attrs.update(texts)
        for where, (_, dtype) in source.contents.datasets.items():
            if where.partition("/")[0] == "optimizer" or dtypes.of_name(dtype) is None:
                continue
            dataset = file.create_dataset(where, data=source.read(where))
            if dtype == "bfloat16":
                dataset.attrs["dtype"] = dtype  # keras 3.15 expects it
