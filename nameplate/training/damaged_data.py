"""Damaged examples of a configured run: found before it trains, refused or skipped, and listed in its directory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from nameplate.checkpoint import durable
from nameplate.data.config import DataConfig, OnDamaged
from nameplate.data.damage import Damage, damaged, without, worded
from nameplate.data.dataset import Dataset, TargetKind
from nameplate.data.errors import DataError
from nameplate.data.source import Stream
from nameplate.errors import NameplateError
from nameplate.formats import limits
from nameplate.training.console import Screen
from nameplate.training.run_directory import RunDirectory

PARTS = ("train", "validation", "test")
Found = Mapping[str, Sequence[Damage]]  # by part of the data


def usable(config: DataConfig, dataset: Dataset, screen: Screen, *, home: RunDirectory | None, writes: bool) -> Dataset:
    """Return the dataset after `data.check` and `data.on_damaged`: as it is, or without its damaged examples.

    A run that skips keeps the list in its directory, and reads no example before it resumes.

    Raises:
        DataError: damaged examples that are not to be skipped, all of them; a stream; or a list that does not fit.
    """
    skips = config.on_damaged is OnDamaged.skip
    if not (config.check or skips):
        return dataset
    path = home.damaged if home else None
    resumes = home is not None and not home.is_new()
    found = _listed(path, dataset) if skips and resumes and path and path.exists() else _scanned(dataset, screen)
    sizes = {part: getattr(dataset, part).size for part in found}
    lines = list(worded(found, sizes))
    if not lines:
        screen.say(f"data: {sum(sizes.values()):,} examples checked, none is damaged")
    elif not skips:
        raise DataError("\n".join([*lines, "repair or remove them, or leave them out: data.on_damaged=skip"]))
    if not skips:
        return dataset
    if path and writes and not resumes:
        text = json.dumps({part: [asdict(each) for each in damages] for part, damages in found.items()}, indent=1)
        durable.replace_file(path, text.encode())
    if lines:
        count = sum(map(len, found.values()))
        listed = f", listed in {path}" if path else ""
        screen.say(f"data: skipping {count:,} damaged of {sum(sizes.values()):,} examples{listed}")
    left: dict[str, Any] = {part: without(getattr(dataset, part), list(damages)) for part, damages in found.items()}
    skipped = {part: tuple(damage.index for damage in damages) for part, damages in found.items() if damages}
    return replace(dataset, **left, skipped=skipped)


def digest(skipped: Mapping[str, Sequence[int]]) -> str:
    """Return a hash of the indices of the skipped examples; empty if there are none."""
    plain = {part: list(indices) for part, indices in sorted(skipped.items()) if indices}
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest() if plain else ""


def require_same(stored: Any, skipped: Mapping[str, Sequence[int]], *, where: str) -> None:
    """Refuse a resume that skips other examples than the run did: the order of the data would be another.

    Raises:
        NameplateError: the digest in the checkpoint is another.
    """
    if (stored or "") != digest(skipped):
        now = f"{sum(map(len, skipped.values()))} are skipped now"
        raise NameplateError(
            f"{where} was trained without other damaged examples: {now}. The order of the data would change; set "
            "data.on_damaged as it was, and put back the run's damaged.json and the files as they were"
        )


def _scanned(dataset: Dataset, screen: Screen) -> dict[str, list[Damage]]:
    classes = {name: units for name, units in dataset.outputs.items() if dataset.kinds[name] is TargetKind.CLASSES}
    parts = {part: getattr(dataset, part) for part in PARTS if getattr(dataset, part) is not None}
    if streams := [part for part, source in parts.items() if isinstance(source, Stream)]:
        raise DataError(
            f"data.check, data.on_damaged: the examples of {', '.join(streams)} come one after another; only data with "
            "random access can be checked before it is trained on"
        )
    found = {}
    for part, source in parts.items():
        if not screen.is_terminal:
            screen.say(f"data: checking {source.size:,} examples of {part}")
        with screen.progress(f"checking {part}") as report:
            found[part] = damaged(source, classes=classes, report=report)
    return found


def _listed(path: Path, dataset: Dataset) -> dict[str, list[Damage]]:
    """Return the list that an earlier start of the run left."""
    try:
        plain = limits.read(path)
        found = {
            part: [Damage(int(each["index"]), str(each["name"]), str(each["why"])) for each in damages]
            for part, damages in plain.items()
        }
        sizes = {part: getattr(dataset, part).size for part in found}
    except (NameplateError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is not the list of damaged examples that this run wrote: {error}") from None
    outside = [part for part, damages in found.items() if any(not 0 <= each.index < sizes[part] for each in damages)]
    if outside:
        raise DataError(f"{path}: the data of {', '.join(outside)} has fewer examples than it had")
    return found
