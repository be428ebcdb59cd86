"""From what a user typed to the checkpoints meant: a run, a directory of checkpoints, or one checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from models import store
from models.names import did_you_mean
from models.store import layout

CHECKPOINTS = "checkpoints"  # inside a run


class PlaceError(store.StoreError):
    """There is no checkpoint where the user pointed."""


@dataclass(frozen=True)
class Place:
    """Checkpoints by step; `directory` holds them, or is None for one that was named itself."""

    directory: Path | None
    paths: tuple[Path, ...]

    @property
    def newest(self) -> Path:
        """The checkpoint meant where one is asked for."""
        return self.paths[-1]


def find(text: str) -> Place:
    """Return the checkpoints at the path `text`, or raise `PlaceError` with what is there or nearby."""
    path = Path(text)
    if not path.exists():
        return _pointed(path)
    if not path.is_dir():
        return _pointed(path)
    if (path / layout.MANIFEST).exists() or layout.step_of(path.name) is not None:
        return Place(None, (path,))
    for directory in (path, path / CHECKPOINTS):
        if paths := _steps(directory):
            return Place(directory, tuple(paths))
        if lost := store.lacking(directory):  # pointers, and nothing that they could lead to
            raise store.DamagedError("\n".join(map(str, lost.values())))
    raise PlaceError(f"There are no checkpoints in {path}.{_inside(path)}")


def find_one(text: str) -> Path:
    """Return the checkpoint at the path `text`; of a run the newest."""
    return find(text).newest


def find_directory(text: str) -> Path:
    """Return the directory of checkpoints at the path `text`, which is a run's or that directory itself."""
    directory = find(text).directory
    if directory is None:
        raise PlaceError(f"{text} is one checkpoint; name its run, or the directory that holds it.")
    return directory


def _steps(directory: Path) -> list[Path]:
    """Return all that has a checkpoint's name, also without a manifest: that damage is to be seen."""
    steps = {layout.step_of(name): directory / name for name in layout.listing(directory)}
    return [steps[step] for step in sorted(step for step in steps if step is not None)]


def _pointed(path: Path) -> Place:
    """Return the checkpoint that a pointer leads to: `runs/digits/checkpoints/best`, or `runs/digits/best`
    for short.
    """
    for directory in (path.parent, path.parent / CHECKPOINTS):
        if layout.is_pointer_name(path.name) and _steps(directory) and (target := store.resolve(directory, path.name)):
            return Place(None, (target,))
    if path.is_file():
        raise PlaceError(f"{path} is a file; a checkpoint is a directory.")
    raise PlaceError(f"There is nothing at {path}.{_nearby(path)}")


def _called(directory: Path) -> str:
    return "The current directory" if directory == Path() else str(directory)


def _nearby(path: Path) -> str:
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        parent = parent.parent
    every = [name for name in layout.listing(parent) if not name.startswith(".")]
    names = [*(name for name in every if (parent / name).is_dir()), *store.pointers(parent)] or every
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
