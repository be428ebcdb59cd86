"""Names for the groups of a `.keras` file from before keras 3.6, called by class and counter: `layers/dense_1`.

Keras numbers the layers of a container class by class, in the container's order (saving/saving_lib.py,
`_save_container_state`, the same from 3.0 on). That order is the one of the configuration in the same file.
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
from nameplate.formats.name_table import Array, NameTable, of_config
from nameplate.naming import names

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


CONFIG = "config.json"
METADATA = "metadata.json"
WEIGHTS = "model.weights.h5"
ASSETS = "assets/"
NAMES = "nameplate.json"  # ours: the names that no configuration of Keras holds


def read_keras_table(path: Path) -> NameTable:
    """Return the table of a `.keras` file.

    Raises:
        FileFormatError: when it is no such file, expands beyond all measure, or its HDF5 part is refused.
    """
    with archives.opened(path, ".keras") as archive:
        config = read_config(archive, path)
        if WEIGHTS not in archive.namelist():
            return of_config(config)
        with open_part(archive, path) as part:
            return _table(config, part)[0]


def open_keras(path: Path) -> Arrays:
    """Open the weights of a `.keras` file by name; close them when done.

    Raises:
        FileFormatError: as `read_keras_table`.
    """
    with archives.opened(path, ".keras") as archive:
        config = read_config(archive, path)
        part = open_part(archive, path)
    table, unnamed = _table(config, part)
    return Arrays(table.arrays, part.read, path=path, format=".keras", close=part.close, unnamed=unnamed)


def _table(config: Mapping[str, Any], part: Hdf5File) -> tuple[NameTable, bool]:
    """Return the table of a file, and whether some of its arrays have places for names."""
    arrays, classes = arrays_by_name(part.contents)
    if has_names(part.contents):
        return of_config(config, arrays, classes), False
    arrays, known = named_by_config(config, arrays)
    return of_config(config, arrays, classes), not known


def read_config(archive: zipfile.ZipFile, path: Path, member: str = CONFIG) -> Mapping[str, Any]:
    """Return a JSON object of the archive.

    Raises:
        FileFormatError: when it is not there, too large or no JSON object.
    """
    if member not in archive.namelist():
        raise FileFormatError(f"{path} has no {member}; it is not a .keras file")
    text = archives.member(archive, member, path, largest=limits.LARGEST)
    found = limits.parsed(text, f"{path}: {member}")
    if not isinstance(found, Mapping):
        raise FileFormatError(f"{path}: {member} is no JSON object")
    return found


def open_part(archive: zipfile.ZipFile, path: Path) -> Hdf5File:
    """Open the weights in an archive.

    Raises:
        FileFormatError: when there are none, or they are refused.
    """
    with tempfile.TemporaryDirectory(prefix="nameplate-") as folder:  # once the file is open it needs no name
        copy = Path(folder) / "weights.h5"
        archives.copy_member(archive, WEIGHTS, path, copy)
        return Hdf5File(copy, budget=budget_of(path, label=f"{path}: {WEIGHTS}"))


_LARGEST_ASSET = 1 << 30  # bytes


def write_copy(source: Path, target: Path) -> None:
    """Write the configuration, weights and assets of a `.keras` file to a new one, by way of plain values.

    Nothing of the old archive's structure comes along, nor of its HDF5 file's: both are read with limits.

    Raises:
        FileFormatError: as `nameplate.formats.keras_file.read_keras_table`.
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
    """Write the groups, texts and arrays of one HDF5 file to another; slots of an optimizer stay behind."""
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
                dataset.attrs["dtype"] = dtype  # as keras 3.15 reads it back
