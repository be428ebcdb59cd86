"""The lease of a run in a store: an object that names the machine that trains there, and that it renews.

A store has no locks. What holds: a second machine that finds a lease which is renewed refuses; one that finds a lease
which is not renewed for `SILENCE` takes it over; one that finds none creates it, and of two that do so at once the
store lets one (where it has conditional writes, as S3 and GCS do). A machine that was cut off from the store, and lost
its lease to another, notices before it writes again. What cannot be had: in the seconds between that look and the
write, both may write. Checkpoints survive this, since each is hashed: a mixture of two is recognised and skipped.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace

from nameplate.checkpoint.errors import LockedError
from nameplate.checkpoint.remote import Remote, RemoteError

NAME = ".nameplate.json"  # of the object
RENEWED = 15.0  # seconds between two renewals
SILENCE = 60.0  # seconds without a renewal after which another machine takes over
_LARGEST = 4096  # bytes


class LostLeaseError(LockedError):
    """Another machine has taken the run over."""


@dataclass(frozen=True)
class Holder:
    """What the object says."""

    run: str  # identifies the run, so that a cache of another one at the same address is recognised
    owner: str  # one process
    cache: str  # the directory on the owner's machine, which an flock protects
    host: str
    pid: int
    beat: int = 0  # counts renewals; clocks are never compared
    released: bool = False

    def __str__(self) -> str:
        return f"process {self.pid} on host {self.host!r}"


class Lease:
    """The lease of one run, claimed by this process."""

    def __init__(self, remote: Remote, *, cache: str) -> None:
        """Take the store; `cache` identifies the directory here, whose lock the caller holds."""
        self._remote = remote
        self._own = Holder("", secrets.token_hex(8), cache, socket.gethostname(), os.getpid())
        self.created = False  # by this process: the run is new
        self.held = False
        self._writing = threading.Lock()  # a renewal must not undo a release

    @property
    def run(self) -> str:
        """What identifies the run, once the lease is claimed."""
        return self._own.run

    def holder(self) -> Holder | None:
        """Return who holds the lease, or held it last; None if nobody ever did."""
        data = self._remote.read(NAME, most=_LARGEST)
        return None if data is None else _decoded(data, self._remote.url)

    def claim(self, *, run: str | None, waiting: Callable[[str], None]) -> None:
        """Claim the lease; `run` is what identifies a run that the store has lost, or that is new.

        Where another machine holds it, wait until that is silent; `waiting` is called with a message first.

        Raises:
            LockedError: another machine trains there.
            RemoteError: the store cannot be used.
        """
        found = self.holder()
        if found is None:
            own = replace(self._own, run=run or secrets.token_hex(8))
            self.created = self._remote.create(NAME, _encoded(own))
            found = self.holder() or own
            if found.owner == own.owner:
                self._own, self.held = found, True
                return
        if not self._is_free(found):
            self._wait(found, waiting)
        self._own = replace(self._own, run=found.run)
        self._remote.write(NAME, _encoded(self._own))
        now = self.holder()
        if now is None or now.owner != self._own.owner:
            raise LockedError(_IN_USE.format(url=self._remote.url, holder=now or "another process"))
        self.held = True

    def renew(self) -> None:
        """Renew the lease.

        Raises:
            LostLeaseError: another machine has it.
            RemoteError: the store cannot be reached.
        """
        with self._writing:
            if not self.held:
                return
            if not self._is_ours():
                self.held = False
                raise LostLeaseError(f"{self._remote.url} has been taken over by another machine: {self.holder()}")
            self._own = replace(self._own, beat=self._own.beat + 1)
            self._remote.write(NAME, _encoded(self._own))

    def release(self, *, begun: bool = True) -> None:
        """Let the next machine start at once. Of a new run that was refused before it had `begun`, nothing is left."""
        with self._writing:
            if self.held and self._is_ours():
                if self.created and not begun:
                    self._remote.delete([NAME])
                else:
                    self._remote.write(NAME, _encoded(replace(self._own, beat=self._own.beat + 1, released=True)))
            self.held = False

    def _is_ours(self) -> bool:
        found = self.holder()
        return found is None or found.owner == self._own.owner

    def _is_free(self, found: Holder) -> bool:
        # A former process of this directory is dead: the caller has its flock.
        mine = found.cache == self._own.cache and found.host == self._own.host
        return found.released or mine or found.owner == self._own.owner

    def _wait(self, found: Holder, waiting: Callable[[str], None]) -> None:
        waiting(
            f"{self._remote.url} is held by {found}; waiting {SILENCE:.0f} s to see whether it is still alive. "
            "If it is not, this process takes over."
        )
        end = time.monotonic() + SILENCE
        while time.monotonic() < end:
            time.sleep(min(1.0, SILENCE / 10))
            now = self.holder()
            if now is None or now.released:
                return
            if now != found:
                raise LockedError(_IN_USE.format(url=self._remote.url, holder=now))


_IN_USE = "{url} is in use by {holder}. Wait until it ends, stop it, or choose another run."


def _encoded(holder: Holder) -> bytes:
    return json.dumps(asdict(holder)).encode()


def _decoded(data: bytes, url: str) -> Holder:
    try:
        values = json.loads(data)
        holder = Holder(**{own.name: values[own.name] for own in fields(Holder)})
        if [type(value) for value in asdict(holder).values()] == [str, str, str, str, int, int, bool]:
            return holder
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise RemoteError(f"{url}/{NAME} is damaged, or not ours. Delete it if nothing trains there.")
