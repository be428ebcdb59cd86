"""Names in a `.keras` file: its configuration as data and its weights' names; nothing in it is executed."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.formats.errors import FileFormatError
from models.formats.hdf5 import read_contents
from models.formats.keras_weights import arrays_by_name
from models.formats.table import Array, Table, of_config

CONFIG = "config.json"
WEIGHTS = "model.weights.h5"
NAMES = "nameplate.json"  # ours: the names that no configuration of Keras holds

_LARGEST_CONFIG = 256 << 20  # bytes
_MOST_EXPANSION = 1200  # times; deflate ends at 1032
_MOST_MEMBERS = 100_000
_PIECE = 1 << 20  # bytes


def read_keras_table(path: Path) -> Table:
    """Return the table of a `.keras` file.

    Raises:
        FileFormatError: when it is no such file, expands beyond all measure, or its HDF5 part is refused.
    """
    with _opened(path) as archive:
        config = read_config(archive, path)
        arrays, classes = _arrays(archive, path)
    return of_config(config, arrays, classes)


def read_config(archive: zipfile.ZipFile, path: Path, member: str = CONFIG) -> Mapping[str, Any]:
    """Return a JSON object of the archive.

    Raises:
        FileFormatError: when it is not there, too large or no JSON object.
    """
    try:
        info = archive.getinfo(member)
    except KeyError:
        raise FileFormatError(f"{path} has no {member}; it is not a .keras file") from None
    if info.file_size > _LARGEST_CONFIG:
        raise FileFormatError(f"{path}: {member} has {info.file_size} bytes; at most {_LARGEST_CONFIG} are read")
    try:
        with archive.open(info) as file:
            found = json.loads(file.read(_LARGEST_CONFIG + 1))
    except (ValueError, RecursionError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise FileFormatError(f"{path}: {member} cannot be read as JSON ({error})") from None
    if not isinstance(found, Mapping):
        raise FileFormatError(f"{path}: {member} is no JSON object")
    return found


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise FileFormatError(f"{path} cannot be read as a .keras file: {error}") from None
    if len(archive.infolist()) > _MOST_MEMBERS:
        archive.close()
        raise FileFormatError(f"{path} has more than {_MOST_MEMBERS} members; no model has")
    return archive


def _arrays(archive: zipfile.ZipFile, path: Path) -> tuple[list[Array], dict[str, str]]:
    if WEIGHTS not in archive.namelist():
        return [], {}
    info = archive.getinfo(WEIGHTS)
    if info.file_size > _MOST_EXPANSION * max(info.compress_size, 1):
        raise FileFormatError(f"{path}: {WEIGHTS} would grow from {info.compress_size} to {info.file_size} bytes")
    with tempfile.TemporaryDirectory(prefix="nameplate-") as folder:
        copy = Path(folder) / "weights.h5"
        left = info.file_size
        try:
            with archive.open(info) as source, copy.open("wb") as target:
                while piece := source.read(min(_PIECE, left + 1)):
                    left -= len(piece)
                    if left < 0:
                        raise FileFormatError(f"{path}: {WEIGHTS} is larger than it says")
                    target.write(piece)
        except zipfile.BadZipFile as error:
            raise FileFormatError(f"{path}: {WEIGHTS} is damaged ({error})") from None
        return arrays_by_name(read_contents(copy))
