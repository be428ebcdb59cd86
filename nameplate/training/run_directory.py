"""The directory of a run: its files, who may enter it, and the checkpoints that a path from a user means."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from nameplate import checkpoint as store
from nameplate.checkpoint import durable, layout
from nameplate.checkpoint.errors import explained
from nameplate.errors import NameplateError, StoppedError
from nameplate.naming.names import did_you_mean

CHECKPOINTS = "checkpoints"  # inside a run


class NoCheckpointError(store.StoreError):
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
    """Return the checkpoints at the path `text`, or raise `NoCheckpointError` with what is there or nearby."""
    path = Path(text)
    if not path.exists():
        return _pointed(path)
    if not path.is_dir():
        return _pointed(path)
    if (path / layout.MANIFEST).exists() or layout.step_of(path.name) is not None:
        return CheckpointPaths(None, (path,))
    for directory in (path, path / CHECKPOINTS):
        if paths := _steps(directory):
            return CheckpointPaths(directory, tuple(paths))
        if lost := store.lacking(directory):  # pointers, but not the checkpoints that they point to
            raise store.DamagedError("\n".join(map(str, lost.values())))
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


def _steps(directory: Path) -> list[Path]:
    """Return all directories with a checkpoint's name; those without a manifest too, so that the damage is reported."""
    steps = {layout.step_of(name): directory / name for name in layout.listing(directory)}
    return [steps[step] for step in sorted(step for step in steps if step is not None)]


def _pointed(path: Path) -> CheckpointPaths:
    """Return the checkpoint of a pointer: `runs/digits/checkpoints/best`, or `runs/digits/best` for short."""
    for directory in (path.parent, path.parent / CHECKPOINTS):
        if layout.is_pointer_name(path.name) and _steps(directory) and (target := store.resolve(directory, path.name)):
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


@dataclass(frozen=True)
class RunDirectory:
    """The files of a run."""

    path: Path
    moved: tuple[str, ...] = ()  # a line for each thing that was in the place of its files, and was set aside

    @property
    def checkpoints(self) -> Path:
        """Checkpoints, one directory a step."""
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """Event files."""
        return self.path / "tensorboard"

    @property
    def dreams(self) -> Path:
        """Pictures of what layers see, if `log.dream` asks for them."""
        return self.path / "dreams"

    @property
    def metrics(self) -> Path:
        """Every record, one JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def config(self) -> Path:
        """The resolved configuration of the last start."""
        return self.path / "config.yaml"

    @property
    def requeue(self) -> Path:
        """Exists while a run that was stopped by a signal waits to be started again."""
        return self.path / "requeue.json"

    @property
    def best_model(self) -> Path:
        """The best model as Keras saves it, if `checkpoint.export_keras` asks for it."""
        return self.path / "best.keras"

    def is_new(self) -> bool:
        """Say whether no checkpoint has been saved here yet."""
        return not store.checkpoints(self.checkpoints)


@contextmanager
def open_run_directory(runs: Path, name: str | None, *, resume: bool) -> Iterator[RunDirectory]:
    """Enter the directory of a run, by its name or a new one by the time, and keep other processes out of it.

    Raises:
        LockedError: another process, which it names, trains there.
        StoreError: the directory cannot hold checkpoints: read-only, full, a file in the way.
        NameplateError: there are checkpoints and `resume` is false.
    """
    existed = name is not None and (runs / name).exists()
    path = runs / name if name else _new_by_time(runs)
    with store.RunLock(path):
        home = RunDirectory(path)
        try:
            store.probe(home.checkpoints)
            _refuse_to_touch(home, resume=resume)
            yield replace(home, moved=tuple(_set_aside(home)))
        except (NameplateError, KeyboardInterrupt):
            begun = home.metrics.exists() or home.requeue.exists()
            if not existed and not begun:  # refused before it started: leave no trace
                shutil.rmtree(path, ignore_errors=True)
            raise


def require_free(runs: Path, name: str | None) -> None:
    """Raise `LockedError` when another process trains in the run; cheap enough to ask before TensorFlow is imported."""
    if name is not None and (runs / name).is_dir():
        with store.RunLock(runs / name):
            pass


def aside(path: Path) -> Path:
    """Return an unused name beside `path`: `metrics.aside-1.jsonl`."""
    number = 1
    while os.path.lexists(found := path.with_name(f"{path.stem}.aside-{number}{path.suffix}")):
        number += 1
    return found


def _set_aside(home: RunDirectory) -> Iterator[str]:
    """Rename what is in the way of a file or directory that a run writes; yield a line for each."""
    files = (home.metrics, home.config, home.requeue, home.best_model)
    in_the_way = [path for path in files if os.path.lexists(path) and not path.is_file()]
    folders = (home.tensorboard, home.dreams)
    in_the_way += [path for path in folders if os.path.lexists(path) and not path.is_dir()]
    for path in in_the_way:
        fresh = aside(path)
        with explained("Moving", path):
            path.rename(fresh)
        yield f"{path.name} is not a {'file' if path in files else 'directory'}; it is set aside as {fresh.name}"


def _refuse_to_touch(home: RunDirectory, *, resume: bool) -> None:
    if not resume and not home.is_new():
        last = store.checkpoints(home.checkpoints)[-1].name
        raise NameplateError(
            f"resume=false, and {home.path} has checkpoints up to {last}; nothing was touched. "
            "Leave resume out to go on from there, or choose another run=NAME."
        )


def _new_by_time(runs: Path) -> Path:
    """Create and return a new directory; two jobs of the same second get two."""
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    number = 1
    while True:
        path = runs / (stamp if number == 1 else f"{stamp}_{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
        except OSError as error:
            raise NameplateError(f"no run can be made in {runs}: {error.strerror}; set runs=DIRECTORY") from None
        else:
            return path


@contextmanager
def marked(home: RunDirectory | None, *, command: str) -> Iterator[None]:
    """Remove an old `requeue.json`; write a new one if a signal ends the block, for a scheduler to start the job again.

    It has the signal, the step, and the command that resumes the run.
    """
    if home is None:
        yield
        return
    home.requeue.unlink(missing_ok=True)
    try:
        yield
    except StoppedError as error:
        mark = {"signal": error.received.name, "step": error.step, "command": command}
        with suppress(OSError):  # the exit code says the same, and must not be hidden by a full disk
            durable.replace_file(home.requeue, f"{json.dumps(mark)}\n".encode())
        error.add_command(command)
        raise
