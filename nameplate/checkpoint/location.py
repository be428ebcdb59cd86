"""Paths from users: the checkpoints of a run, of a directory, or the one that a path or a pointer names."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nameplate.checkpoint import layout
from nameplate.checkpoint.errors import DamagedError, StoreError
from nameplate.checkpoint.fetching import read_copy
from nameplate.checkpoint.lock import held
from nameplate.checkpoint.pointers import pointers, resolve
from nameplate.checkpoint.ranking import best
from nameplate.checkpoint.recovery import lacking, newest_good
from nameplate.checkpoint.remote import Remote, cache_of, url_of
from nameplate.naming.names import did_you_mean

OnDamage = Callable[[Path, Exception], None]
CHECKPOINTS = "checkpoints"  # inside a run


class NoCheckpointError(StoreError):
    """There is no checkpoint at the path."""


@dataclass(frozen=True)
class CheckpointPaths:
    """Checkpoints in the order of their steps; `directory` holds them, or is None if a path named a single one."""

    directory: Path | None
    paths: tuple[Path, ...]

    @property
    def newest(self) -> Path:
        """The last of them."""
        return self.paths[-1]


def find(text: str) -> CheckpointPaths:
    """Return the checkpoints at the path `text`, or raise `NoCheckpointError` with what is there or nearby.

    Those of a run in a store, or one of them, are copied to this machine first.
    """
    path = _on_this_machine(text)
    if not path.exists():
        return _pointed(path)
    if not path.is_dir():
        return _pointed(path)
    if (path / layout.MANIFEST).exists() or layout.step_of(path.name) is not None:
        return CheckpointPaths(None, (path,))
    for directory in (path, path / CHECKPOINTS):
        if paths := _steps(directory):
            return CheckpointPaths(directory, tuple(paths))
        if lost := lacking(directory):  # pointers, but not the checkpoints that they point to
            raise DamagedError("\n".join(map(str, lost.values())))
    raise NoCheckpointError(f"There are no checkpoints in {path}.{_inside(path)}")


def find_one(text: str) -> Path:
    """Return the checkpoint at the path `text`; of a run the newest."""
    return find(text).newest


def find_directory(text: str) -> Path:
    """Return the directory of checkpoints at the path `text`, which is a run's or that directory itself."""
    directory = find(text).directory
    if directory is None:
        raise NoCheckpointError(f"{text} is one checkpoint; name its run, or the directory that holds it.")
    return directory


def choose(path: str, which: str | int, on_damage: OnDamage) -> Path:
    """Return a good checkpoint of the run at `path`: its `best` (the newest if none is), its `latest`, or of a step.

    A path that names one checkpoint, or a pointer, is that one. `on_damage` is called for each that is skipped.

    Raises:
        StoreError: there is none, none is good, or `which` is something else.
    """
    require_choice(which)
    if url_of(path):
        wanted = layout.step_name(which) if isinstance(which, int) else which
        path = str(_on_this_machine(path, wanted))
    found = find(path)
    if isinstance(which, int):
        steps = [layout.step_of(each.name) for each in found.paths]
        if which not in steps:
            raise NoCheckpointError(
                f"{path} has no checkpoint of step {which}; it has {_listed(list(map(str, steps)))}."
            )
        return found.paths[steps.index(which)]
    if found.directory is None:
        return found.newest
    chosen = best(found.directory, on_damage) if which == "best" else None
    if chosen is None and (opened := newest_good(found.directory, on_damage)) is not None:
        opened.close()
        chosen = opened.path
    return chosen or found.newest


def require_choice(which: str | int) -> None:
    """Raise `StoreError` for what `choose` does not take as `which`."""
    if isinstance(which, bool) or not (isinstance(which, int) or which in ("best", "latest")):
        raise StoreError(f"which={which!r}: 'best', 'latest', or the number of a step")


def _on_this_machine(text: str, wanted: str | None = None) -> Path:
    """Return a path of this machine: of a copy, made now, of what is in a store; all of a run, or what is `wanted`."""
    url = url_of(text)
    if url is None:
        return Path(text)
    home, _, inside = url.partition(f"/{CHECKPOINTS}")
    last = home.rpartition("/")[2]
    if not inside and (last in ("best", "latest") or layout.step_of(last) is not None):
        home, inside = home.rpartition("/")[0], f"/{last}"
    copy = cache_of(home, kind="read")
    with held(copy.parent / f".{copy.name}.lock"):  # of two readers one copies
        read_copy(Remote(home), copy, wanted=inside.strip("/") or wanted, say=warnings.warn)
    return copy / CHECKPOINTS / inside.strip("/") if inside.strip("/") else copy


def _steps(directory: Path) -> list[Path]:
    """Return all directories with a checkpoint's name; those without a manifest too, so that the damage is reported."""
    steps = {layout.step_of(name): directory / name for name in layout.listing(directory)}
    return [steps[step] for step in sorted(step for step in steps if step is not None)]


def _pointed(path: Path) -> CheckpointPaths:
    """Return the checkpoint of a pointer: `runs/digits/checkpoints/best`, or `runs/digits/best` for short."""
    for directory in (path.parent, path.parent / CHECKPOINTS):
        if layout.is_pointer_name(path.name) and _steps(directory) and (target := resolve(directory, path.name)):
            return CheckpointPaths(None, (target,))
    if path.is_file():
        raise NoCheckpointError(f"{path} is a file; a checkpoint is a directory.")
    raise NoCheckpointError(f"There is nothing at {path}.{_nearby(path)}")


def _called(directory: Path) -> str:
    return "The current directory" if directory == Path() else str(directory)


def _nearby(path: Path) -> str:
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        parent = parent.parent
    every = [name for name in layout.listing(parent) if not name.startswith(".")]
    names = [*(name for name in every if (parent / name).is_dir()), *pointers(parent)] or every
    if not names:
        return f" {_called(parent)} is empty."
    wanted = path.relative_to(parent).parts[0] if path.is_relative_to(parent) else path.name
    return f"{did_you_mean(wanted, names)} {_called(parent)} has {_listed(names)}."


def _inside(path: Path) -> str:
    runs = [name for name in layout.listing(path) if _steps(path / name / CHECKPOINTS)]
    if runs:
        return f" It holds the runs {_listed(runs)}; name one of them."
    names = [name for name in layout.listing(path) if not name.startswith(".")]
    return f" It holds {_listed(names)}." if names else " It is empty."


def _listed(names: list[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
