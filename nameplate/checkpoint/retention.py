"""Retention: the last, the best, every M-th, the ends of stages, the protected, and always one good checkpoint stay."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from nameplate.checkpoint import durable, layout
from nameplate.checkpoint.errors import StoreError, explained
from nameplate.checkpoint.pointers import pointers
from nameplate.checkpoint.ranking import ranked
from nameplate.checkpoint.reading import open_checkpoint, read_manifest
from nameplate.checkpoint.verification import verify

STAGE = "stage"  # key in a manifest's `about` at the end of a stage of the run: such a checkpoint stays


@dataclass(frozen=True)
class Deleted:
    """The outcome of retention: checkpoints removed, and those that could not be removed, with the reason."""

    removed: tuple[Path, ...]
    failed: Mapping[Path, StoreError]


def keep(
    directory: Path,
    *,
    last: int,
    best: int = 0,
    metric: str | None = None,
    mode: str = "min",
    every: int | None = None,
    protect: Collection[Path] = (),
    thorough: bool = False,
    partial: bool = False,
) -> Deleted:
    """Delete the checkpoints in `directory` that `to_delete` returns; the caller holds the run's lock.

    Each is renamed out of sight before its files are deleted, so that a half-deleted one is never taken for a whole
    one. A failed deletion is returned, not raised: the job goes on.
    """
    removed, failed = [], {}
    for path in to_delete(
        directory,
        last=last,
        best=best,
        metric=metric,
        mode=mode,
        every=every,
        protect=protect,
        thorough=thorough,
        partial=partial,
    ):
        try:
            with explained("Deleting", path):
                discard(path)
            removed.append(path)
        except StoreError as error:
            failed[path] = error
    return Deleted(tuple(removed), failed)


def to_delete(
    directory: Path,
    *,
    last: int,
    best: int = 0,
    metric: str | None = None,
    mode: str = "min",
    every: int | None = None,
    protect: Collection[Path] = (),
    thorough: bool = False,
    partial: bool = False,
) -> list[Path]:
    """Return the checkpoints that may be deleted, ordered by step, never by time.

    Kept are the newest `last`; the `best` by `metric` (`mode` "min" or "max"), without those where it is NaN, missing
    or, unless `partial`, measured over part of an epoch; those whose step is a multiple of `every`; the ends of stages;
    those in `protect`; those that a pointer leads to; and the newest good one, which opens with all its files or, if
    `thorough`, has every byte verified.
    """
    directory = Path(directory)
    _require_valid(last=last, best=best, metric=metric, mode=mode, every=every)
    paths = layout.checkpoints(directory)
    names = {Path(path).name for path in protect} | {path.name for path in pointers(directory).values()}
    kept = set(paths[max(len(paths) - last, 0) :]) | {path for path in paths if path.name in names}
    kept |= {path for path in paths if path not in kept and _ends_stage(path)}
    if every:
        kept |= {path for path in paths if (layout.step_of(path.name) or 0) % every == 0}
    if best and metric is not None:
        kept |= set(ranked(paths, metric=metric, mode=mode, partial=partial)[:best])
    if not any(_is_good(path, thorough=thorough) for path in sorted(kept, reverse=True)):
        rest = [path for path in reversed(paths) if path not in kept]
        kept |= set([path for path in rest if _is_good(path, thorough=thorough)][:1])
    return [path for path in paths if path not in kept]


def discard(path: Path) -> None:
    """Delete the checkpoint at `path`, after one durable rename that hides it."""
    hidden = durable.beside(path, layout.DELETING)
    path.rename(hidden)
    durable.sync_directory(path.parent)
    durable.remove_tree(hidden)


def _require_valid(*, last: int, best: int, metric: str | None, mode: str, every: int | None) -> None:
    if last < 0 or best < 0 or (every is not None and every < 1):
        raise StoreError(
            f"last and best must be at least 0 and every at least 1; received last={last}, best={best}, every={every}."
        )
    if mode not in ("min", "max"):
        raise StoreError(f"mode is 'min' or 'max'; received {mode!r}.")
    if best and metric is None:
        raise StoreError(f"To keep the best {best}, name the metric that ranks them.")


def _ends_stage(path: Path) -> bool:
    try:
        return STAGE in read_manifest(path).about
    except StoreError:
        return False


def _is_good(path: Path, *, thorough: bool) -> bool:
    try:
        if thorough:
            return not verify(path)
        open_checkpoint(path).close()
    except StoreError:
        return False
    return True
