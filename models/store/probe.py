"""Whether a directory can hold checkpoints, found out before the first step instead of at the first save."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from models.store import durable, layout
from models.store.errors import explained

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
