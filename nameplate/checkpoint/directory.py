"""Whether a directory can hold checkpoints, found out before the first step instead of at the first save."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from nameplate.checkpoint import durable, layout
from nameplate.checkpoint.errors import explained

_STEP = 10**9  # as long a name as a run will need
_SIZE = 1 << 16  # bytes


def probe(directory: Path) -> None:
    """Do in `directory`, creating it, what a save will do: write, fsync, rename, and delete again.

    Raises `StoreError` with the reason: read-only, full, a file in the way, a path too long.
    """
    directory = Path(directory)
    target = directory / layout.step_name(_STEP)
    trial = durable.beside(target, layout.PROBING)
    renamed = durable.beside(target, layout.PROBING)
    with explained("A trial save in", directory):
        durable.make_directories(directory)
        try:
            trial.mkdir()
            durable.write_file(trial / layout.shard_name("optimizer", 0, 2), b"\0" * _SIZE)
            durable.sync_directory(trial)
            trial.rename(renamed)
            durable.sync_directory(directory)
        except BaseException:
            for path in (trial, renamed):
                with suppress(OSError):
                    durable.remove_tree(path)
            raise
        durable.remove_tree(renamed)


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
