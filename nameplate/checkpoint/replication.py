"""A run's directory copied to a store: a checkpoint's files first, its manifest last, then the pointers.

`Replica.push` makes one pass and may fail anywhere; the next one continues.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nameplate.checkpoint import layout, manifest
from nameplate.checkpoint.errors import StoreError
from nameplate.checkpoint.manifest import Manifest
from nameplate.checkpoint.plain_data import LARGEST_TEXT
from nameplate.checkpoint.pointers import leads_to, pointers
from nameplate.checkpoint.remote import Remote, is_relative_name
from nameplate.checkpoint.retention import STAGE
from nameplate.checkpoint.verification import verify

FOLDER = "checkpoints"  # of a run, here and in the store
REQUEUE = "requeue.json"  # the one log that a run deletes
_HELD = ".replicating"  # in the run's directory: hard links that outlive retention while they are sent
POINTERS = ("latest", "best")
_SMALL = 1 << 20  # bytes; a log of this size is sent again when another process begins

Say = Callable[[str], None]


class Replica:
    """A run's directory on this machine, and its copy in a store."""

    def __init__(
        self, run: Path, remote: Remote, *, every: int | None, say: Say, prunes: bool = True, distrusted: set[str]
    ) -> None:
        """Take both sides.

        Args:
            run: the run's directory.
            remote: the run in the store.
            every: checkpoints at multiples of so many steps stay in the store for ever.
            say: reports damage.
            prunes: delete in the store what retention has deleted here.
            distrusted: checkpoints in the store that are known to be damaged.
        """
        self.remote, self._run, self._directory = remote, run, run / FOLDER
        self._every, self._say, self._prunes, self._distrusted = every, say, prunes, distrusted
        self._whole: dict[str, bytes] = {}  # checkpoints in the store, with their manifests' seals
        self._sent: set[tuple[str, bytes, str]] = set()  # (checkpoint, seal, file) of those in progress
        self._damaged: dict[str, bytes] = {}  # checkpoints here that are not sent
        self._logs: dict[str, tuple[int, int]] = {}  # size and time of what was sent
        self._pointed: dict[str, bytes] = {}
        self._kept: dict[str, bool] = {}  # checkpoints in the store alone, and whether they end a stage
        self.stopped = False  # set from another thread: nothing more is sent

    def push(self, *, logs: bool = True) -> bool:
        """Send what the store lacks, at most one checkpoint, the newest first; say whether there is more to send.

        Raises:
            RemoteError: the store refuses or is away; nothing that is there has been damaged.
        """
        sizes = self.remote.sizes()
        for name in [name for name in self._whole if f"{FOLDER}/{name}/{layout.MANIFEST}" not in sizes]:
            del self._whole[name]  # somebody deleted it there
        waiting = self._waiting(sizes)
        if waiting:
            with _held(self._run, waiting[0]) as copy:
                if copy is not None:
                    self._send(copy, sizes)
        if logs or waiting:
            self._send_logs(sizes)
        self._send_pointers(sizes)
        if self._prunes and not self.stopped:
            self._prune(sizes)
        return len(waiting) > 1

    def missing(self) -> list[Path]:
        """Return the checkpoints here that are not known to be in the store, the newest first."""
        paths = reversed(layout.checkpoints(self._directory))
        return [path for path in paths if self._seal_unlike(path, self._whole) and not self._is_damaged(path)]

    # ---- checkpoints ---------------------------------------------------------------------------------------------

    def _waiting(self, sizes: dict[str, int]) -> list[Path]:
        """Return what is to be sent, in order: the newest, since all can be lost, then the best, then the others."""
        paths = [path for path in self.missing() if not self._is_there(path, sizes)]
        best = pointers(self._directory).get("best")
        return paths[:1] + sorted(paths[1:], key=lambda path: path != best)

    def _is_there(self, path: Path, sizes: dict[str, int]) -> bool:
        """Say whether the store has this checkpoint from an earlier process, whole and unchanged."""
        if path.name in self._distrusted or f"{FOLDER}/{path.name}/{layout.MANIFEST}" not in sizes:
            return False
        data = self.remote.read(f"{FOLDER}/{path.name}/{layout.MANIFEST}", most=LARGEST_TEXT) or b""
        try:
            if data != (path / layout.MANIFEST).read_bytes() or lacking(path.name, manifest.decode(data), sizes):
                return False
        except (OSError, StoreError):
            return False
        self._whole[path.name] = _seal(data)
        return True

    def _send(self, path: Path, sizes: dict[str, int]) -> None:
        """Send a checkpoint: its files, then the logs up to it, then the manifest, which makes it exist."""
        name, at = path.name, f"{FOLDER}/{path.name}"
        data = (path / layout.MANIFEST).read_bytes()
        seal = _seal(data)
        if damages := verify(path):
            self._damaged[name] = seal
            self._say(f"{name} is damaged and not replicated: {damages[0]}")
            return
        if f"{at}/{layout.MANIFEST}" in sizes:  # of a checkpoint with other content
            self.remote.delete([f"{at}/{layout.MANIFEST}"])
        for file in manifest.decode(data).files:
            if self.stopped:
                return
            if (name, seal, file) not in self._sent:
                self.remote.upload(path / file, f"{at}/{file}")
                self._sent.add((name, seal, file))
        self._send_logs(sizes)
        if self.stopped:
            return
        self.remote.write(f"{at}/{layout.MANIFEST}", data)
        self._sent = {sent for sent in self._sent if sent[0] != name}
        self._distrusted.discard(name)
        self._whole[name] = seal

    def _send_pointers(self, sizes: dict[str, int]) -> None:
        for name in POINTERS:
            target = leads_to(self._directory, name)
            try:
                data = (self._directory / name).read_bytes()
            except OSError:
                continue
            if target is None or self._seal_unlike(target, self._whole) or self.stopped:
                continue
            if self._pointed.get(name) != data:
                self.remote.write(f"{FOLDER}/{name}", data)
                self._pointed[name] = data

    def _prune(self, sizes: dict[str, int]) -> None:
        """Delete in the store the checkpoints that retention has deleted here, once a newer one is whole there."""
        here = {path.name for path in layout.checkpoints(self._directory)}
        whole = [step for name in self._whole if name in here and (step := layout.step_of(name)) is not None]
        there: dict[str, list[str]] = {}
        for path in sizes:
            parts = path.split("/")
            if len(parts) == 3 and parts[0] == FOLDER:
                there.setdefault(parts[1], []).append(path)
        for name, paths in there.items():
            step = layout.step_of(name)
            if step is None or name in here or not whole or step >= max(whole) or self._is_permanent(name, step, paths):
                continue
            paths.sort(key=lambda path: not path.endswith(f"/{layout.MANIFEST}"))  # from then on it does not exist
            self.remote.delete(paths)
            self._whole.pop(name, None)

    def _is_permanent(self, name: str, step: int, paths: list[str]) -> bool:
        if self._every and step % self._every == 0:
            return True
        if f"{FOLDER}/{name}/{layout.MANIFEST}" not in paths:
            return False
        if name not in self._kept:
            self._kept[name] = ends_stage(self.remote, name)
        return self._kept[name]

    def _is_damaged(self, path: Path) -> bool:
        return path.name in self._damaged and not self._seal_unlike(path, self._damaged)

    def _seal_unlike(self, path: Path, seals: dict[str, bytes]) -> bool:
        """Say whether a checkpoint here is not the one of this seal; False for one that has just been deleted."""
        try:
            with (path / layout.MANIFEST).open("rb") as file:
                return seals.get(path.name) != _seal(file.read(256))
        except OSError:
            return False

    # ---- everything else -----------------------------------------------------------------------------------------

    def _send_logs(self, sizes: dict[str, int]) -> None:
        """Send the files of the run that have changed: records, event files, the configuration."""
        present = set()
        for name, path, about in _logs(self._run):
            present.add(name)
            now = (about.st_size, about.st_mtime_ns)
            if self._logs.get(name) == now or self.stopped:
                continue
            if name in self._logs or about.st_size < _SMALL or sizes.get(name) != about.st_size:
                with suppress(FileNotFoundError):
                    self.remote.upload(path, name)
            self._logs[name] = now
        if REQUEUE not in present and (REQUEUE in sizes or REQUEUE in self._logs):
            self.remote.delete([REQUEUE])
            sizes.pop(REQUEUE, None)
            self._logs.pop(REQUEUE, None)


def _logs(run: Path) -> Iterator[tuple[str, Path, os.stat_result]]:
    """Yield the files of a run that are not checkpoints: name, path and status. Hidden ones and links stay here."""
    for folder, folders, names in os.walk(run):
        at = Path(folder).relative_to(run)
        folders[:] = sorted(each for each in folders if not each.startswith(".") and (at / each) != Path(FOLDER))
        for name in sorted(names):
            path, relative = Path(folder, name), (at / name).as_posix()
            with suppress(OSError):
                about = path.lstat()
                if stat.S_ISREG(about.st_mode) and not name.startswith(".") and is_relative_name(relative):
                    yield relative, path, about


@contextmanager
def _held(run: Path, path: Path) -> Iterator[Path | None]:
    """Yield the checkpoint under links of its own, so that retention cannot delete it while it is sent; None if gone.

    A file system without hard links yields the checkpoint itself; then an upload may have to start again.
    """
    copy = run / _HELD / path.name
    shutil.rmtree(run / _HELD, ignore_errors=True)
    try:
        copy.mkdir(parents=True)
        for file in os.listdir(path):
            os.link(path / file, copy / file)
    except FileNotFoundError:
        copy = path if layout.has_manifest(path) else None  # type: ignore[assignment]
    except OSError:
        copy = path
    try:
        yield copy
    except FileNotFoundError:
        pass  # deleted meanwhile; a newer one is next
    finally:
        shutil.rmtree(run / _HELD, ignore_errors=True)


def _seal(data: bytes) -> bytes:
    """Return the first line of a manifest, which has the hash of all that follows."""
    return data.partition(b"\n")[0]


def ends_stage(remote: Remote, name: str) -> bool:
    """Return whether a checkpoint in a store is the end of a stage, which retention keeps."""
    data = remote.read(f"{FOLDER}/{name}/{layout.MANIFEST}", most=LARGEST_TEXT)
    try:
        return data is not None and STAGE in manifest.decode(data).about
    except StoreError:
        return False


def lacking(name: str, content: Manifest, sizes: dict[str, int]) -> str:
    """Return which files of a checkpoint the store lacks or has in another size; an empty string if none."""
    found = {file: sizes.get(f"{FOLDER}/{name}/{file}") for file in content.files}
    wrong = [file for file, record in content.files.items() if found[file] != record.size]
    return ", ".join(f"{file} {'is missing' if found[file] is None else 'has another size'}" for file in wrong)
