"""Which checkpoint is the best by a metric: one rule for the pointer, for retention and for readers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from nameplate.checkpoint import layout
from nameplate.checkpoint.errors import DamagedError, StoreError
from nameplate.checkpoint.pointers import resolve
from nameplate.checkpoint.reading import read_manifest
from nameplate.checkpoint.verification import verify

PARTIAL = "partial"  # key in a manifest's `about`: its metrics cover only part of an epoch and are not ranked
BEST = "best"  # the pointer, and the key of the criterion: {"monitor": name, "mode": "min" or "max", "value": ...}


def ranked(paths: Sequence[Path], *, metric: str, mode: str, partial: bool = False) -> list[Path]:
    """Return those of `paths` that have a finite number for `metric`, the best first, the older first among equals.

    With `partial`, metrics measured over part of an epoch count too.
    """
    sign = 1 if mode == "min" else -1
    scored = []
    for path in paths:
        value = _metric(path, metric, partial=partial)
        if value is not None and math.isfinite(value):
            scored.append((sign * value, layout.step_of(path.name), path))
    return [path for _, _, path in sorted(scored)]


def best_of(directory: Path, *, metric: str, mode: str, good: Callable[[Path], bool]) -> Path | None:
    """Return the best checkpoint in `directory` that is `good`; None where none has a finite number for `metric`."""
    return next(filter(good, ranked(layout.checkpoints(Path(directory)), metric=metric, mode=mode)), None)


def best(directory: Path, on_damage: Callable[[Path, Exception], None]) -> Path | None:
    """Return the best fully verified checkpoint in `directory`; None where no metric was measured.

    Where no checkpoint records its run's criterion, this is the checkpoint that the pointer `best` leads to.
    `on_damage` is called for every checkpoint that is passed over.
    """
    directory = Path(directory)

    def good(path: Path) -> bool:
        damages = verify(path)
        if damages:
            on_damage(path, DamagedError("; ".join(map(str, damages[:3]))))
        return not damages

    for path in reversed(layout.checkpoints(directory)):
        if criterion := _criterion(path):
            metric, mode = criterion
            return best_of(directory, metric=metric, mode=mode, good=good)
    try:
        pointed = resolve(directory, BEST)
    except DamagedError as error:
        on_damage(directory / BEST, error)
        return None
    return pointed if pointed is not None and good(pointed) else None


def _criterion(path: Path) -> tuple[str, str] | None:
    """Return the metric and mode by which a checkpoint's run ranks, where it records them."""
    try:
        about = read_manifest(path).about.get(BEST)
    except StoreError:
        return None
    if not isinstance(about, dict) or about.get("mode") not in ("min", "max"):
        return None
    return str(about.get("monitor")), str(about["mode"])


def _metric(path: Path, metric: str, *, partial: bool) -> float | None:
    try:
        content = read_manifest(path)
    except StoreError:
        return None
    return None if content.about.get(PARTIAL) and not partial else content.metrics.get(metric)
