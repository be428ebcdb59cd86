"""A run in a store: it trains in a directory of this machine, which a thread replicates. Needs no TensorFlow.

Training never waits for the store, but at its very start, to fetch what is there, and for a bounded time at its end.
"""

from __future__ import annotations

import json
import secrets
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from nameplate import checkpoint as store
from nameplate.checkpoint import durable, files, layout
from nameplate.checkpoint.errors import LockedError, StoreError
from nameplate.checkpoint.fetching import newest_step, pull
from nameplate.checkpoint.lease import RENEWED, Lease
from nameplate.checkpoint.remote import AwayError, Remote, RemoteError, cache_of, url_of
from nameplate.checkpoint.replication import FOLDER, Replica
from nameplate.errors import StoppedError
from nameplate.training.config import CheckpointConfig
from nameplate.training.console import tool

NAME = ".remote.json"  # in the directory: the address, and what identifies both sides
START = 30.0  # seconds that a start without anything here waits for a store that is away
POLL = 1.0  # seconds between two looks at the directory of checkpoints
LOGS = 30.0  # seconds between two transfers of logs, or 20 times as long as the last one took
LONGEST_PAUSE = 60.0  # seconds between two attempts at a store that is away
AFTER_SIGNAL = 0.1  # of `checkpoint.remote_wait`

Say = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """What a directory of this machine knows of the run that it is a copy of."""

    url: str
    cache: str  # identifies the directory
    run: str = ""  # identifies the run in the store; empty before the first contact

    @staticmethod
    def of(run: Path) -> Place | None:
        """Return what is noted in a directory; None if it is not a copy of a run in a store."""
        try:
            values = json.loads(files.read_regular(run / NAME, most=4096))
            return Place(str(values["url"]), str(values["cache"]), str(values["run"]))
        except FileNotFoundError:
            return None
        except (OSError, StoreError, ValueError, KeyError, TypeError, RecursionError):
            raise StoreError(f"{run / NAME} is damaged; it says which run in a store {run} is a copy of.") from None

    def note(self, run: Path) -> None:
        """Write it down."""
        durable.replace_file(run / NAME, json.dumps(asdict(self)).encode())


def local_run(runs: str | Path, name: str, cache: str | None) -> Path:
    """Return the directory on this machine of a run: the directory itself, or the copy of one in a store."""
    url = url_of(runs)
    return Path(runs) / name if url is None else cache_of(f"{url}/{name}", cache)


@contextmanager
def replicated(run: Path, url: str, config: CheckpointConfig, say: Say) -> Iterator[None]:
    """Bring a directory, whose lock the caller holds, up to what a store has, and replicate it inside the block.

    Raises:
        LockedError: another machine trains there.
        NothingGoodError: the store has checkpoints, and none is good.
        StoreError: the store refuses; or it is away, and there is nothing here to continue from; or the directory is a
            copy of another run.
    """
    remote = Remote(url)
    place = Place.of(run) or Place(url, secrets.token_hex(8))
    place.note(run)
    lease = Lease(remote, cache=place.cache)
    replication = Replication(run, remote, lease, config, say)
    try:
        replication.begin()
        replication.start()
        yield
    except BaseException as error:
        replication.close(config.remote_wait * (AFTER_SIGNAL if isinstance(error, StoppedError) else 1))
        raise
    else:
        replication.close(config.remote_wait)


def push_run(run: Path, say: Say) -> int:
    """Send what the store of a run lacks, and return how many checkpoints there are; nothing is deleted there.

    Raises:
        LockedError: the run is in use, here or on another machine.
        StoreError: the directory is not a copy of a run in a store; or the store refuses, is away, or has newer
            checkpoints.
    """
    if url := url_of(run):
        run = cache_of(url)
    place = Place.of(run)
    if place is None:
        raise StoreError(f"{run} is not a copy of a run in a store; there is nothing to send it to.")
    with store.RunLock(run):
        remote = Remote(place.url)
        lease = Lease(remote, cache=place.cache)
        _claim(run, remote, lease, say, restores=True)
        try:
            _refuse_older(run, remote)
            replica = Replica(run, remote, every=None, say=say, prunes=False, distrusted=set())
            while replica.push():
                lease.renew()
            return len(store.checkpoints(run / FOLDER))
        finally:
            lease.release()


class Replication:
    """Replicates a directory from a thread; another one renews the lease."""

    def __init__(self, run: Path, remote: Remote, lease: Lease, config: CheckpointConfig, say: Say) -> None:
        self._run, self._remote, self._lease, self._config, self._say = run, remote, lease, config, say
        self._distrusted: set[str] = set()
        self._closing, self._wake = threading.Event(), threading.Event()
        self._claimed = self._done = self._is_away = False
        self._threads: list[threading.Thread] = []

    def begin(self) -> None:
        """Claim the run and fetch what is newer there; a store that is away is waited for if nothing is here."""
        end: float | None = None
        while True:
            try:
                _claim(self._run, self._remote, self._lease, self._say)
                self._distrusted = pull(self._remote, self._run, every=self._config.keep_every, say=self._say)
                self._claimed = True
                return
            except AwayError as error:
                if not self._lease.held and self._saved():
                    self._report_away(error)
                    return
                end = end or time.monotonic() + START
                if time.monotonic() > end:
                    raise RemoteError(
                        f"{error}\nWithout the store it is unknown whether this run has begun, and nothing was "
                        "touched. Start it again when the store can be reached."
                    ) from error
                time.sleep(min(1.0, START / 10))

    def start(self) -> None:
        """Start the threads; they end with the process."""
        self._replica = Replica(
            self._run, self._remote, every=self._config.keep_every, say=self._say, distrusted=self._distrusted
        )
        for loop in (self._replicate, self._renew):
            thread = threading.Thread(target=loop, name=f"replication {loop.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self, seconds: float) -> None:
        """Wait at most so long until the store has everything; say what it lacks then, and give up the lease."""
        self._closing.set()
        self._wake.set()
        if self._threads and not self._has_begun():  # refused: nothing is to be sent
            self._replica.stopped = True
        elif self._threads:
            with suppress(KeyboardInterrupt):  # what is here stays here
                self._threads[0].join(min(seconds, 2.0))
                if self._threads[0].is_alive() and seconds > 2.0:
                    self._say(f"waiting up to {seconds:.0f} s for {self._remote.url}; Ctrl-C does not lose anything")
                    self._threads[0].join(seconds - 2.0)
            self._replica.stopped = True
            if not self._done:
                self._say(self._left())
        self._give_up_lease()

    def _left(self) -> str:
        missing = [path.name for path in self._replica.missing()]
        what = f"{', '.join(missing[:5])}{' and others' if len(missing) > 5 else ''} and " if missing else ""
        return (
            f"not yet in {self._remote.url}: {what}the latest logs. They are in {self._run}; to send them later:\n"
            f"  {tool('ckpt')} push {shlex.quote(str(self._run))}"
        )

    def _give_up_lease(self) -> None:
        def give_up() -> None:
            with suppress(StoreError):
                self._lease.release(begun=self._has_begun())

        if self._lease.held:
            thread = threading.Thread(target=give_up, name="replication release", daemon=True)
            thread.start()
            thread.join(10.0)

    def _saved(self) -> bool:
        return bool(store.checkpoints(self._run / FOLDER))

    def _has_begun(self) -> bool:
        return self._saved() or (self._run / "metrics.jsonl").exists()

    def _replicate(self) -> None:
        """Send what changes until the run is over and everything is sent; a failure is reported once and retried."""
        seen, more, logs_due, pause = -1, False, 0.0, 0.0
        while not self._done:
            closing, began = self._closing.is_set(), time.monotonic()
            try:
                if not self._claimed:
                    self._claim_late()
                changed = _changed(self._run / FOLDER)
                if more or closing or changed != seen or began >= logs_due:
                    more = self._replica.push(logs=closing or began >= logs_due)
                    seen, now = changed, time.monotonic()
                    logs_due = now + max(LOGS, 20 * (now - began)) if began >= logs_due else logs_due
                self._report_back()
                pause = 0.0 if more else POLL
                self._done = closing and not more
            except LockedError as error:
                self._stop(error)
                return
            except Exception as error:  # whatever happens here must not end a training
                self._report_away(error)
                more, pause = True, min(max(2 * pause, POLL), 5.0 if closing else LONGEST_PAUSE)
            if self._replica.stopped:
                return
            self._wake.wait(0.0 if self._done else pause)
            self._wake.clear()

    def _renew(self) -> None:
        while not self._closing.wait(RENEWED) or (self._threads[0].is_alive() and not self._replica.stopped):
            if self._closing.is_set():
                time.sleep(RENEWED)
            if self._lease.held and not self._replica.stopped:
                try:
                    self._lease.renew()
                except LockedError as error:
                    self._stop(error)
                    return
                except StoreError:
                    continue  # away: the other thread reports it

    def _claim_late(self) -> None:
        """Claim the run of a store that was away at the start; refuse to go on if others have trained meanwhile."""
        try:
            _claim(self._run, self._remote, self._lease, self._say)
        except RemoteError:
            raise
        except StoreError as error:
            raise LockedError(str(error)) from error
        _refuse_older(self._run, self._remote)
        self._claimed = True

    def _stop(self, error: Exception) -> None:
        if not self._replica.stopped:
            self._replica.stopped = True
            self._say(f"{error}. This run goes on, but only in {self._run}: nothing more is replicated.")

    def _report_away(self, error: Exception) -> None:
        if not self._is_away:
            self._is_away = True
            self._say(
                f"{self._remote.url} is away: {error}\n"
                f"The run goes on in {self._run}; it is replicated when the store is back"
            )

    def _report_back(self) -> None:
        if self._is_away and not self._replica.missing():
            self._is_away = False
            self._say(f"{self._remote.url} is back, and has every checkpoint")


def _claim(run: Path, remote: Remote, lease: Lease, say: Say, *, restores: bool = False) -> None:
    """Claim the lease of the run that a directory is a copy of; `restores`: also where the store has lost the run.

    Raises:
        LockedError: another machine trains there.
        StoreError: the directory is a copy of another run, or of one that the store no longer has.
    """
    place = Place.of(run)
    assert place is not None
    holder = lease.holder()
    if place.run and holder is None and not restores:
        raise StoreError(
            f"{remote.url} no longer has the run of which {run} is a copy. To put it back: "
            f"{tool('ckpt')} push {shlex.quote(str(run))}. To start over, delete that directory."
        )
    if place.run and holder is not None and holder.run != place.run:
        raise StoreError(
            f"{run} is a copy of another run that was at {remote.url} before. Delete the directory, or move it away."
        )
    lease.claim(run=place.run or None, waiting=say)
    if lease.run != place.run:
        replace(place, run=lease.run).note(run)


def _refuse_older(run: Path, remote: Remote) -> None:
    """Raise `LockedError` if a store has newer checkpoints than the directory that would replace them."""
    saved, there = store.checkpoints(run / FOLDER), newest_step(remote)
    if there > (layout.step_of(saved[-1].name) or 0 if saved else -1):
        raise LockedError(f"{remote.url} has a checkpoint of step {there}, from another machine")


def _changed(directory: Path) -> int:
    """Return a number that changes with every checkpoint and pointer."""
    try:
        return directory.stat().st_mtime_ns
    except OSError:
        return -1
