"""The registry of formats: which format a file has, and its arrays by name."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from nameplate import checkpoint as store
from nameplate.checkpoint.location import NoCheckpointError, choose
from nameplate.checkpoint.remote import url_of
from nameplate.errors import FileFormatError, as_path
from nameplate.formats.arrays import Arrays
from nameplate.formats.keras_file import open_keras, read_keras_table
from nameplate.formats.keras_shards import ENDING as SHARDS
from nameplate.formats.keras_shards import open_shards, read_shards_table
from nameplate.formats.keras_weights import open_legacy, open_weights_file, read_legacy_table, read_weights_table
from nameplate.formats.name_table import Array, NameTable
from nameplate.formats.pytorch_file import open_pytorch, read_pytorch_table
from nameplate.formats.safetensors_file import INDEX, open_safetensors, read_safetensors_table
from nameplate.formats.saved_model import GRAPH, open_saved_model, read_saved_model_table

# By the ending of the name; the first that fits counts.
OPENERS: dict[str, Callable[[Path], Arrays]] = {
    ".keras": open_keras,
    ".weights.h5": open_weights_file,
    SHARDS: open_shards,
    ".h5": open_legacy,
    ".hdf5": open_legacy,
    ".safetensors": open_safetensors,
    INDEX: open_safetensors,
    ".pt": open_pytorch,
    ".pth": open_pytorch,
    ".bin": open_pytorch,
    ".index": open_saved_model,
}
TABLES: dict[str, Callable[[Path], NameTable]] = {
    ".keras": read_keras_table,
    ".weights.h5": read_weights_table,
    SHARDS: read_shards_table,
    ".h5": read_legacy_table,
    ".hdf5": read_legacy_table,
    ".safetensors": read_safetensors_table,
    INDEX: read_safetensors_table,
    ".pt": read_pytorch_table,
    ".pth": read_pytorch_table,
    ".bin": read_pytorch_table,
    ".index": read_saved_model_table,
}


def open_weights(path: str | os.PathLike[str]) -> Arrays:
    """Open the arrays of any file of a known format, or of a SavedModel, a checkpoint or a run's best one, by name.

    Nothing in the file is executed or imported, and each array is read on demand. Use the result in a `with` block,
    which closes the file.

    Raises:
        FileFormatError: when the file does not exist, is damaged, has an unknown format, or is refused as unsafe.
    """
    path = as_path(path)
    with suppress(NoCheckpointError):
        path = checkpoint_of(path)
    if path.is_dir():
        return _directory(path)
    ending = kind(path)
    if ending is None:
        raise FileFormatError(f"{path}: weights are read from {', '.join(OPENERS)}, SavedModels, checkpoints and runs")
    if not path.is_file():
        raise FileFormatError(f"{path}: there is no such file")
    return OPENERS[ending](path)


def checkpoint_of(path: Path, which: str | int = "best") -> Path:
    """Return the checkpoint that the path of a run or a pointer means; any other path as it is.

    Raises:
        StoreError: a directory that is nothing else has no such checkpoint, or no good one.
    """
    own = path.is_dir() or store.layout.is_pointer_name(path.name) or url_of(path) is not None
    if is_weights(path) or kind(path) is not None or not own:
        return path

    def warn(checkpoint: Path, error: Exception) -> None:
        warnings.warn(f"{checkpoint.name} is damaged and skipped: {error}", stacklevel=6)

    return choose(str(path), which, warn)


def kind(path: Path) -> str | None:
    """Return the ending that identifies a file's format, None where it is unknown."""
    return next((ending for ending in OPENERS if path.name.endswith(ending)), None)


def is_weights(path: Path) -> bool:
    """Return whether a path is a file of a known format, a SavedModel, or a directory with sharded safetensors."""
    if path.is_dir():
        return (path / GRAPH).is_file() or bool(_indexes(path))
    return path.is_file() and kind(path) is not None


def read_table(path: Path) -> NameTable:
    """Return the names of the layers and arrays in a file or directory of a known format.

    Raises:
        FileFormatError: as `open_weights`.
    """
    if path.is_dir():
        return read_saved_model_table(path) if (path / GRAPH).is_file() else read_safetensors_table(_indexes(path)[0])
    ending = kind(path)
    if ending is None:
        raise FileFormatError(f"{path}: names are read from {', '.join(TABLES)} files, SavedModels and checkpoints")
    if not path.is_file():
        raise FileFormatError(f"{path}: there is no such file")
    return TABLES[ending](path)


def _directory(path: Path) -> Arrays:
    if (path / GRAPH).is_file():
        return open_saved_model(path)
    if (path / store.layout.MANIFEST).is_file():
        return _checkpoint(path)
    indexes = _indexes(path)
    if len(indexes) != 1:
        raise FileFormatError(
            f"{path} is a directory, but no SavedModel ({GRAPH}), no checkpoint ({store.layout.MANIFEST}) and no run; "
            f"it has {len(indexes)} files *{INDEX}"
        )
    return open_safetensors(indexes[0])


def _indexes(path: Path) -> list[Path]:
    return sorted(path.glob(f"*{INDEX}"))


def _checkpoint(path: Path) -> Arrays:
    checkpoint = store.open(path)
    records = checkpoint.weights.records
    arrays = [Array(name, record.shape, record.dtype.name, name) for name, record in records.items()]
    return Arrays(arrays, checkpoint.weights.__getitem__, path=path, format="checkpoint", close=checkpoint.close)
