"""The directory of a run: its files, and the lock that lets only one process write there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from nameplate import checkpoint as store
from nameplate.checkpoint import durable
from nameplate.checkpoint.errors import explained
from nameplate.checkpoint.remote import url_of
from nameplate.errors import NameplateError, StoppedError, worded
from nameplate.training.config import CheckpointConfig
from nameplate.training.remote_run import local_run, replicated


@dataclass(frozen=True)
class RunDirectory:
    """The files of a run."""

    path: Path
    remote: str | None = None  # address of the run in a store, of which `path` is a copy
    moved: tuple[str, ...] = ()  # messages about what was in the way of its files and has been moved aside

    @property
    def shown(self) -> str:
        """Where the user finds the run."""
        return self.remote or str(self.path)

    @property
    def shown_absolute(self) -> str:
        """Where anybody finds the run."""
        return self.remote or str(self.path.absolute())

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
        """Exists while a run that a signal stopped is to be started again."""
        return self.path / "requeue.json"

    @property
    def best_model(self) -> Path:
        """The best model as Keras saves it, if `checkpoint.export_keras` asks for it."""
        return self.path / "best.keras"

    @property
    def damaged(self) -> Path:
        """The damaged examples that the run leaves out, if `data.on_damaged` asks for it."""
        return self.path / "damaged.json"

    def is_new(self) -> bool:
        """Say whether no checkpoint has been saved here yet."""
        return not store.checkpoints(self.checkpoints)


@contextmanager
def open_run_directory(
    runs: str | Path,
    name: str | None,
    *,
    resume: bool,
    checkpoint: CheckpointConfig | None = None,
    say: Callable[[str], None] = print,
) -> Iterator[RunDirectory]:
    """Lock the directory of a run: by its name, or a new one named after the time.

    Where `runs` is the address of a store (`s3://bucket/runs`), the directory is a copy on this machine, brought up to
    what the store has and replicated inside the block; `say` reports on it.

    Raises:
        LockedError: another process trains there; the message names it.
        StoreError: the directory cannot hold checkpoints, because it is read-only, full, or not a directory; or the
            store refuses.
        NameplateError: `resume` is false, but there are checkpoints.
    """
    checkpoint = checkpoint or CheckpointConfig()
    stores, given = url_of(runs), name
    name = name or _new_by_time(local_run(runs, "new", checkpoint.remote_cache).parent if stores else Path(runs)).name
    path = local_run(runs, name, checkpoint.remote_cache)
    url = f"{stores}/{name}" if stores else None
    existed = given is not None and path.exists()
    with store.RunLock(path):
        home = RunDirectory(path, url)
        try:
            with replicated(path, url, checkpoint, say) if url else nullcontext():
                store.probe(home.checkpoints)
                _refuse_to_touch(home, resume=resume)
                yield replace(home, moved=tuple(_set_aside(home)))
        except (NameplateError, KeyboardInterrupt):
            begun = home.metrics.exists() or home.requeue.exists()
            if not existed and not begun:  # refused before it started: leave nothing behind
                shutil.rmtree(path, ignore_errors=True)
            raise


def require_free(path: Path) -> None:
    """Raise `LockedError` if another process trains in the run. Needs no TensorFlow: call it before the import."""
    if path.is_dir():
        with store.RunLock(path):
            pass


def aside(path: Path) -> Path:
    """Return an unused name beside `path`: `metrics.aside-1.jsonl`."""
    number = 1
    while os.path.lexists(unused := path.with_name(f"{path.stem}.aside-{number}{path.suffix}")):
        number += 1
    return unused


def _set_aside(home: RunDirectory) -> Iterator[str]:
    """Move aside whatever is in the way of a file or directory that a run writes; yield a message for each."""
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
            f"resume={worded(keys='false', arguments='False')}, and {home.shown} has checkpoints up to {last}; nothing "
            "was touched. Leave resume out to continue from there, or choose another run."
        )


def _new_by_time(runs: Path) -> Path:
    """Create and return a new directory; jobs that start in the same second get different ones."""
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    number = 1
    while True:
        path = runs / (stamp if number == 1 else f"{stamp}_{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
        except OSError as error:
            raise NameplateError(f"cannot create a run in {runs}: {error.strerror}; set runs=DIRECTORY") from None
        else:
            return path


@contextmanager
def marked(home: RunDirectory | None, *, command: str) -> Iterator[None]:
    """Remove an old `requeue.json`, and write a new one if a signal ends the block, so that a scheduler can requeue it.

    It holds the signal, the step, and the command that resumes the run.
    """
    if home is None:
        yield
        return
    home.requeue.unlink(missing_ok=True)
    try:
        yield
    except StoppedError as error:
        mark = {"signal": error.received.name, "step": error.step, "command": command}
        with suppress(OSError):  # a full disk must not hide the exit code, which says the same
            durable.replace_file(home.requeue, f"{json.dumps(mark)}\n".encode())
        error.add_command(command)
        raise
