"""What dead writers left behind, removed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from models.store import durable, layout
from models.store.errors import explained


def sweep_leftovers(directory: Path) -> list[Path]:
    """Remove the temporaries in `directory` and return their paths; the caller holds the run's lock.

    A checkpoint that was moved aside for a new one that never came gets its name back. What cannot be deleted
    now stays for the next time. Raises `StoreError` when a name cannot be given back.
    """
    directory = Path(directory)
    swept = []
    for name in layout.listing(directory):
        if not name.startswith(layout.TEMPORARIES):
            continue
        path = directory / name
        if name.startswith(layout.REPLACED) and _give_back(path):
            continue
        with suppress(OSError):
            durable.remove_tree(path)
            swept.append(path)
    return swept


def _give_back(path: Path) -> bool:
    """Rename `.replaced-step_00000010-1f2e3d4c` to `step_00000010` unless that is there."""
    target = path.with_name(path.name.removeprefix(layout.REPLACED).rsplit("-", 1)[0])
    if layout.step_of(target.name) is None or target.exists():
        return False
    with explained("Restoring", target):
        path.rename(target)
        durable.sync_directory(path.parent)
    return True
