"""Pointers: `latest` and `best`, names that lead to a checkpoint and are replaced by one rename.

A pointer is a small file, `step_00001200 <hash>`, rather than a symbolic link: copying tools neither follow nor drop
it, it works on file systems without links, it cannot lead out of its directory, and its hash distinguishes a flipped
bit from a missing checkpoint.
"""

from __future__ import annotations

from pathlib import Path

from xxhash import xxh3_128_hexdigest

from nameplate.checkpoint import durable, files, layout
from nameplate.checkpoint.errors import DamagedError, StoreError, explained
from nameplate.checkpoint.files import patiently

_LARGEST = 256  # bytes


def point(directory: Path, name: str, target: Path) -> None:
    """Point `name` durably at the checkpoint `target` in `directory`. Raises `StoreError` when that does not exist."""
    directory = Path(directory)
    target = Path(target)
    if not layout.is_pointer_name(name):
        raise StoreError(f"A pointer cannot be called {name!r}; use a short lower-case word such as latest or best.")
    if layout.step_of(target.name) is None or not layout.has_manifest(directory / target.name):
        raise StoreError(f"{name!r} cannot point at {target}: {directory} has no such checkpoint.")
    path = directory / name
    with explained("Pointing", path):
        durable.replace_file(path, _text(name, target.name), temporary=durable.beside(path, layout.POINTING))


def resolve(directory: Path, name: str) -> Path | None:
    """Return the checkpoint that `name` points at, or None when there is no such pointer.

    Raises `DamagedError` when the pointer is damaged or its checkpoint is gone.
    """
    path = Path(directory) / name
    try:
        with explained("Reading", path):
            data = patiently(lambda: files.read_regular(path, most=_LARGEST))
    except StoreError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError | IsADirectoryError):
            return None
        raise
    target = _target(path, data)
    if target is None:
        raise DamagedError(f"The pointer {path} is damaged. Delete it; the next save writes it again.")
    if not layout.has_manifest(target):
        raise DamagedError(f"The pointer {path} leads to {target.name}, which is gone.")
    return target


def leads_to(directory: Path, name: str) -> Path | None:
    """Return a pointer's target, whether or not it exists; None where the pointer is damaged or missing."""
    path = Path(directory) / name
    try:
        return _target(path, files.read_regular(path, most=_LARGEST))
    except (OSError, DamagedError):
        return None


def _target(path: Path, data: bytes) -> Path | None:
    word = data.split(b" ")[0].decode("ascii", "replace")
    sound = layout.step_of(word) is not None and data == _text(path.name, word)
    return path.with_name(word) if sound else None


def pointers(directory: Path) -> dict[str, Path]:
    """Return the intact pointers in `directory`, each with its checkpoint."""
    targets = {}
    for name in layout.listing(Path(directory)):
        if layout.is_pointer_name(name):
            try:
                target = resolve(directory, name)
            except DamagedError:
                continue
            if target is not None:
                targets[name] = target
    return targets


def _text(name: str, target: str) -> bytes:
    return f"{target} {xxh3_128_hexdigest(f'{name} {target}'.encode())}\n".encode()
