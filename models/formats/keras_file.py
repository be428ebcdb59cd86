"""A `.keras` file: its configuration as data, its weights by name; nothing in it is executed."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.formats import archive as archives
from models.formats import json_text
from models.formats.arrays import Arrays
from models.formats.budget import budget_of
from models.formats.errors import FileFormatError
from models.formats.hdf5 import Hdf5File
from models.formats.keras_counters import named_by_config
from models.formats.keras_weights import arrays_by_name, has_names
from models.formats.table import Table, of_config

CONFIG = "config.json"
METADATA = "metadata.json"
WEIGHTS = "model.weights.h5"
ASSETS = "assets/"
NAMES = "nameplate.json"  # ours: the names that no configuration of Keras holds


def read_keras_table(path: Path) -> Table:
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


def _table(config: Mapping[str, Any], part: Hdf5File) -> tuple[Table, bool]:
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
    text = archives.member(archive, member, path, largest=json_text.LARGEST)
    found = json_text.parsed(text, f"{path}: {member}")
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
