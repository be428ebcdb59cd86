"""The newest checkpoint that is good, whatever happened to the newer ones, and never silently."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from models.store import layout
from models.store.errors import DamagedError, NothingGoodError, StoreError
from models.store.reading import Checkpoint, open_checkpoint
from models.store.verifying import verify

T = TypeVar("T")


def newest_good(directory: Path, on_damage: Callable[[Path, Exception], None]) -> Checkpoint | None:
    """Return the newest checkpoint in `directory` of which every byte is verified; None when there is none at
    all.

    Reads the whole checkpoint; `load_newest` verifies while it loads instead. `on_damage` hears of each one
    passed over. Raises `NothingGoodError` when there are checkpoints and none is good.
    """
    return load_newest(directory, _verified, on_damage)


def load_newest(
    directory: Path, load: Callable[[Checkpoint], T], on_damage: Callable[[Path, Exception], None]
) -> T | None:
    """Return `load(checkpoint)` for the newest checkpoint that it can load without a `DamagedError`; None
    when there is none.

    `load` may have used a part of a checkpoint when the damage shows; it is then called again with the one
    before. Raises `NothingGoodError` when there are checkpoints and none is good; any other error passes
    through.
    """
    directory = Path(directory)
    seen: dict[Path, str] = {}
    while left := [path for path in layout.checkpoints(directory) if path not in seen]:
        path = left[-1]
        try:
            return _load(open_checkpoint(path), load)
        except StoreError as error:
            if layout.has_manifest(path) and not isinstance(error, DamagedError):
                raise
            seen[path] = str(error)
            if layout.has_manifest(path):  # not deleted by its owner's retention while we looked at it
                on_damage(path, error)
    if not seen:
        return None
    reports = "\n".join(f"  {message}" for message in seen.values())
    raise NothingGoodError(
        f"None of the {len(seen)} checkpoints in {directory} is good:\n{reports}\n"
        "Restore one from a backup, or start afresh with another run=NAME."
    )


def _load(checkpoint: Checkpoint, load: Callable[[Checkpoint], T]) -> T:
    try:
        return load(checkpoint)
    except BaseException:
        checkpoint.close()
        raise


def _verified(checkpoint: Checkpoint) -> Checkpoint:
    damages = verify(checkpoint.path)
    if damages:
        listed = "; ".join(map(str, damages[:5])) + (f"; and {len(damages) - 5} more" if len(damages) > 5 else "")
        raise DamagedError(f"{checkpoint.path} is damaged: {listed}.")
    return checkpoint
