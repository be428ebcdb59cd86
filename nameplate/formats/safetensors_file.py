"""safetensors files, single or in shards with an index, ours or anyone's: names, and arrays by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from nameplate.checkpoint import StoreError, tensor_names
from nameplate.checkpoint.tensor_file import TensorFile, open_tensors
from nameplate.errors import FileFormatError
from nameplate.formats import limits
from nameplate.formats.arrays import Arrays
from nameplate.formats.limits import budget_of_files
from nameplate.formats.name_table import Array, NameTable, of_arrays
from nameplate.naming import names

INDEX = ".safetensors.index.json"

_MOST_SHARDS = 10_000
_CACHES = "blobs"  # the folder of a download cache that snapshots/<revision>/<file> links into


def read_safetensors_table(path: Path) -> NameTable:
    """Return the table of a safetensors file; PyTorch's dotted names are split at their last dot.

    Raises:
        FileFormatError: when the header is invalid, or a name is harmful.
    """
    forms = open_safetensors(path).forms
    dotted = not any(names.SEPARATOR in name for name in forms)
    arrays = [
        Array(_with_slash(name) if dotted else name, form.shape, form.dtype)
        for name, form in forms.items()
        if "@" not in name
    ]
    return of_arrays(Path(path).name, arrays)


def open_safetensors(path: Path) -> Arrays:
    """Open a safetensors file, or the index of several; the names stay as in the file.

    Raises:
        FileFormatError: when a file is invalid, a name is harmful, or the index and its shards disagree.
    """
    return _sharded(path) if path.name.endswith(INDEX) else _single(path)


def _single(path: Path) -> Arrays:
    file = _opened(path)  # no budget: its tensors are proved to fill the file without overlap
    return Arrays(_arrays(file), _reader({"": file}), path=path, format=".safetensors")


def _sharded(path: Path) -> Arrays:
    listed = _weight_map(path)
    files = {shard: _shard(path, shard) for shard in dict.fromkeys(listed.values())}
    budget = budget_of_files(str(path), files.values())
    shards = {shard: _opened(file) for shard, file in files.items()}
    arrays = [array for shard, file in shards.items() for array in _arrays(file, shard)]
    held = {(array.name, array.place.partition("\0")[0]) for array in arrays}
    problems = [f"  {name}: not in {shard}" for name, shard in listed.items() if (name, shard) not in held]
    problems += [f"  {name}: in {shard}, not in the index" for name, shard in held if listed.get(name) != shard]
    if problems:
        raise FileFormatError("\n".join([f"{path} disagrees with its files:", *sorted(problems)[:20]]))
    return Arrays(arrays, _reader(shards), path=path, format=".safetensors", budget=budget)


def _arrays(file: TensorFile, shard: str = "") -> list[Array]:
    return [Array(name, entry.shape, entry.dtype.name, f"{shard}\0{name}") for name, entry in file.entries.items()]


def _reader(shards: Mapping[str, TensorFile]) -> Callable[[str], np.ndarray]:
    def read(place: str) -> np.ndarray:
        shard, _, name = place.partition("\0")
        return shards[shard][name]

    return read


def _opened(path: Path) -> TensorFile:
    try:
        return open_tensors(path)
    except StoreError as error:
        raise FileFormatError(f"{path} cannot be read as safetensors: {error}") from None


def _weight_map(path: Path) -> dict[str, str]:
    """Return `{tensor: file}` of an index."""
    try:
        listed = limits.read(path)["weight_map"]
    except (OSError, KeyError, TypeError) as error:
        raise FileFormatError(f"{path} is not the index of safetensors files: {error!r:.200}") from None
    if not isinstance(listed, dict) or not all(isinstance(shard, str) for shard in listed.values()):
        raise FileFormatError(f"{path}: its weight_map is not {{tensor: file}}")
    files = set(listed.values())
    bad = sorted(shard for shard in files if tensor_names.foreign_fault(shard) or "/" in shard or not shard.strip("."))
    if bad or len(files) > _MOST_SHARDS:
        raise FileFormatError(f"{path}: its files must lie beside it under plain names; it lists {bad[:5]}")
    return listed


def _shard(index: Path, name: str) -> Path:
    """Return the path of a shard; a link may lead beside the index or into a download cache, nowhere else."""
    path = index.parent / name
    try:
        real, home = path.resolve(strict=True), index.parent.resolve(strict=True)
    except OSError as error:
        raise FileFormatError(f"{index}: {name} cannot be found ({error.strerror})") from None
    cache = home.parent.parent / _CACHES if home.parent.name == "snapshots" else home
    if real.parent not in (home, index.resolve().parent, cache):
        raise FileFormatError(f"{index}: {name} is a link to {real}, outside its directory; such files are refused")
    return path


def _with_slash(name: str) -> str:
    layer, _, variable = name.rpartition(".")
    return names.join(layer, variable)
