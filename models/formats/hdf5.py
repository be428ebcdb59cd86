"""The names in an HDF5 file, read in a process of its own with limits.

Nothing but names, shapes, types and the text attributes that Keras writes is read. Links that leave the file, external
and virtual data are refused (CVE-2026-1669), as are more objects than any model has.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.formats.errors import FileFormatError

_SECONDS = 120  # of waiting, and of processor time
_MEMORY = 4 << 30  # bytes of address space
_MOST_OBJECTS = 500_000
_DEEPEST = 64
_LARGEST_TEXT = 64 << 20  # bytes of one attribute


@dataclass(frozen=True)
class Contents:
    """What an HDF5 file holds by path: text attributes, and (shape, type) of data, in the order of the file."""

    attributes: dict[str, dict[str, Any]]
    datasets: dict[str, tuple[tuple[int, ...], str]]


def read_contents(path: Path) -> Contents:
    """Return what the file holds.

    Raises:
        FileFormatError: when it is no HDF5 file, reaches outside itself, or is larger than any model.
    """
    root = Path(__file__).resolve().parents[2]
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("HDF5_", "PYTHON"))},
        "HDF5_PLUGIN_PATH": os.devnull,
        "HDF5_USE_FILE_LOCKING": "FALSE",
        "PYTHONPATH": str(root),
    }
    command = [sys.executable, "-m", "models.formats.hdf5", str(Path(path).resolve())]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, env=environment, check=False)
    except subprocess.TimeoutExpired:
        raise FileFormatError(f"{path}: reading its names took longer than {_SECONDS} s; it was given up") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise FileFormatError(f"{path}: {lines[-1] if lines else f'its reader ended with {done.returncode}'}")
    found = json.loads(done.stdout)
    datasets = {name: (tuple(shape), dtype) for name, (shape, dtype) in found["datasets"].items()}
    return Contents(found["attributes"], datasets)


def _limit() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _contents(path: str) -> dict[str, Any]:
    import h5py

    attributes: dict[str, dict[str, Any]] = {}
    datasets: dict[str, tuple[list[int], str]] = {}
    objects = 0
    with h5py.File(path, "r") as file:
        stack: list[tuple[str, Any]] = [("", file)]
        while stack:
            where, group = stack.pop()
            if len(where.split("/")) > _DEEPEST:
                raise ValueError(f"groups are nested deeper than {_DEEPEST}")
            texts = {key: _text(group.attrs[key]) for key in group.attrs}
            if texts:
                attributes[where] = {key: value for key, value in texts.items() if value is not None}
            children = []
            for key in group:
                objects += 1
                if objects > _MOST_OBJECTS:
                    raise ValueError(f"more than {_MOST_OBJECTS} objects")
                place = f"{where}/{key}" if where else key
                if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                    raise ValueError(f"{place} is a link that can leave the file; such files are refused")
                child = group[key]
                if isinstance(child, h5py.Group):
                    children.append((place, child))
                elif isinstance(child, h5py.Dataset):
                    if child.external or child.is_virtual:
                        raise ValueError(f"{place} has its data in another file; such files are refused")
                    datasets[place] = ([int(size) for size in child.shape or ()], _dtype(child))
            stack.extend(reversed(children))
    return {"attributes": attributes, "datasets": datasets}


def _dtype(dataset: Any) -> str:
    marked = dataset.attrs.get("dtype")
    return marked if isinstance(marked, str) else str(dataset.dtype)


def _text(value: Any) -> Any:
    """Return an attribute that is text or a list of texts; None for others."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        return value if len(value) <= _LARGEST_TEXT else None
    if hasattr(value, "tolist"):
        listed = value.tolist()
        if isinstance(listed, list) and all(isinstance(each, str | bytes) for each in listed):
            return [each.decode(errors="replace") if isinstance(each, bytes) else each for each in listed]
    return None


if __name__ == "__main__":
    _limit()
    try:
        print(json.dumps(_contents(sys.argv[1])))
    except (OSError, ValueError, RuntimeError, KeyError, MemoryError, RecursionError) as failure:
        print(f"it cannot be read as HDF5: {failure}", file=sys.stderr)
        raise SystemExit(1) from None
