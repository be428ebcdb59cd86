"""Recovery: the newest good checkpoint, with every damaged or lost one after it reported."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from nameplate.checkpoint import layout
from nameplate.checkpoint.errors import DamagedError, NothingGoodError, StoreError
from nameplate.checkpoint.pointers import leads_to, resolve
from nameplate.checkpoint.reading import Checkpoint, open_checkpoint
from nameplate.checkpoint.verification import verify

T = TypeVar("T")

_POINTERS = ("latest", "best")


def newest_good(directory: Path, on_damage: Callable[[Path, Exception], None]) -> Checkpoint | None:
    """Return the newest fully verified checkpoint in `directory`; None when there are no checkpoints.

    This reads the whole checkpoint; `load_newest` verifies while it loads instead. `on_damage` is called for each one
    passed over. Raises `NothingGoodError` when there are checkpoints and none is good.
    """
    return load_newest(directory, _verified, on_damage)


def load_newest(
    directory: Path, load: Callable[[Checkpoint], T], on_damage: Callable[[Path, Exception], None]
) -> T | None:
    """Return `load(checkpoint)` for the newest checkpoint that loads without a `DamagedError`; None when there is none.

    `load` may have used part of a checkpoint before the damage shows; it is then called again with the one before.
    `on_damage` is called for every damaged or lost checkpoint newer than the one returned; lost are those without a
    manifest, and those that `latest` leads to and that are gone. Raises `NothingGoodError` when there are, or were,
    checkpoints and none is good; any other error passes through.
    """
    directory = Path(directory)
    complete = layout.checkpoints(directory)
    newest = layout.step_of(complete[-1].name) if complete else None
    seen: dict[Path, str] = {}
    for path, lost in lacking(directory).items():
        step = layout.step_of(path.name)
        if step is not None and (newest is None or step > newest):
            on_damage(path, lost)
            seen[path] = str(lost)
    while left := [path for path in layout.checkpoints(directory) if path not in seen]:
        path = left[-1]
        try:
            return _load(open_checkpoint(path), load)
        except StoreError as error:
            if layout.has_manifest(path) and not isinstance(error, DamagedError):
                raise
            seen[path] = str(error)
            if layout.has_manifest(path):  # else retention of a running job deleted it meanwhile
                on_damage(path, error)
    if not seen:
        return None
    reports = "\n".join(f"  {message}" for message in seen.values())
    raise NothingGoodError(
        f"None of the {len(seen)} checkpoints in {directory} is good:\n{reports}\n"
        f"Restore one from a backup, or start again: with another run, or by deleting {directory}."
    )


def lacking(directory: Path) -> dict[Path, DamagedError]:
    """Return what is missing in `directory`, and why.

    Missing are steps without a manifest, and checkpoints that a pointer leads to and that are gone; damaged pointers
    are listed too.
    """
    directory = Path(directory)
    steps = [directory / name for name in layout.listing(directory) if layout.step_of(name) is not None]
    missing = {
        path: DamagedError(f"{path} has no {layout.MANIFEST}; it was emptied or partly deleted")
        for path in steps
        if not layout.has_manifest(path) and os.path.lexists(path)
    }
    for name in filter(layout.is_pointer_name, layout.listing(directory)):
        error, target = _pointer_fault(directory, name)
        if error is not None and (target or name in _POINTERS):  # else it may be any file that somebody left there
            missing.setdefault(target or directory / name, error)
    return missing


def _pointer_fault(directory: Path, name: str) -> tuple[DamagedError | None, Path | None]:
    """Return what is wrong with a pointer, and the missing checkpoint that it leads to."""
    while True:
        target = leads_to(directory, name)
        try:
            resolve(directory, name)
        except DamagedError as error:
            if leads_to(directory, name) != target:
                continue  # a running job moved the pointer and deleted the old checkpoint meanwhile
            return (None if target and _is_moved_aside(target) else error), target
        return None, None


def _is_moved_aside(path: Path) -> bool:
    """Return whether this checkpoint is being replaced; if the writer died, the next save restores it."""
    return any(name.startswith(f"{layout.REPLACED}{path.name}-") for name in layout.listing(path.parent))


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
