"""Coordination of a run's workers: they meet before training, and each learns when another is gone.

TensorFlow's own engine moves the numbers. This module does what it does not: it waits for the others for a limited
time, detects a worker that was started with something else, passes on from the chief where the run is, and ends the
process within a bounded time when a worker dies, even if a call into TensorFlow would never return.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

from nameplate.engine.cluster import Cluster, ClusterError
from nameplate.errors import Exit, NameplateError, NotFiniteError, StoppedError

GRACE = 30.0  # seconds that a process has to end by itself after another one is gone
_SHARED = (NotFiniteError, StoppedError)  # all workers raise these at the same step


class WorkerLostError(NameplateError):
    """Another worker is gone; this one ends, to be started again with all others."""

    exit_code = Exit.TERMINATED


class Coordinator:
    """The connections of one worker to the others; enter it before TensorFlow's strategy is made.

    Each worker holds a connection to the chief, on the port where TensorFlow's server will listen afterwards. The
    kernel closes it when the process is gone, however it ended.
    """

    def __init__(self, cluster: Cluster, *, job: str, patience: float) -> None:
        """Take the workers, a text of what this one was started with, and the seconds to wait for the others."""
        self.cluster, self._job, self._patience = cluster, job, patience
        self._links: dict[int, _Link] = {}
        self._leaving = False
        self._lost: str | None = None
        self._noticed = threading.Event()

    @property
    def is_chief(self) -> bool:
        """Say whether this process writes what the run keeps."""
        return self.cluster.is_chief

    def __enter__(self) -> Coordinator:
        try:
            if self.is_chief:
                self._gather()
            else:
                self._links[0] = self._join()
        except BaseException:
            self._close()
            raise
        return self

    def broadcast(self, message: Mapping[str, Any]) -> None:
        """Send a message to every connected worker; from the chief that is all of them."""
        for link in self._links.values():
            link.send(message)

    def from_chief(self) -> dict[str, Any]:
        """Return the chief's next message.

        Raises:
            WorkerLostError: the chief is gone before it sent one.
        """
        message = self._links[0].receive()
        if message is None:
            raise WorkerLostError(f"the chief at {self.cluster.addresses[0]} ended before the run began")
        return message

    def watch(self) -> None:
        """Start to listen for workers that leave; call it when no more messages are expected."""
        for index, link in self._links.items():
            link.wait(None)
            threading.Thread(target=self._listen, args=(index, link), name=f"worker {index}", daemon=True).start()

    def lost(self, seconds: float = 0.0) -> str | None:
        """Return which worker is gone, waiting up to `seconds` to learn of it; None if all are there."""
        self._noticed.wait(seconds)
        return self._lost

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say goodbye if all workers end like this; to the others, any other end looks as if the process had died."""
        self._leaving = True
        if error is None or isinstance(error, _SHARED):
            self.broadcast({"bye": self.cluster.index})
        self._close()

    def _close(self) -> None:
        for link in self._links.values():
            link.close()

    def _gather(self) -> None:
        """Wait for every worker, as the chief."""
        links = self._links
        with _listening(self.cluster.addresses[0]) as server:
            end = time.monotonic() + self._patience
            while len(links) < len(self.cluster.addresses) - 1:
                server.settimeout(max(end - time.monotonic(), 0.01))
                try:
                    link = _Link(server.accept()[0])
                except TimeoutError:
                    raise ClusterError(self._missing(links)) from None
                hello = link.wait(5.0).receive() or {}
                if hello.get("hello") not in range(1, len(self.cluster.addresses)):
                    link.close()  # not one of ours, at the wrong port
                    continue
                links[hello["hello"]] = link
                if hello.get("job") != self._job:
                    self._refuse(links, hello["hello"])

    def _refuse(self, links: Mapping[int, _Link], index: int) -> None:
        address = self.cluster.addresses[index]
        reason = f"worker {index} at {address} was started with another configuration or version than the chief"
        for link in links.values():
            link.send({"refused": reason})
        raise ClusterError(reason)

    def _missing(self, links: Mapping[int, _Link]) -> str:
        missing = [f"{i} at {each}" for i, each in enumerate(self.cluster.addresses) if i and i not in links]
        return (
            f"worker {', '.join(missing)} did not connect within {self._patience:g} s. Start all workers at about the "
            "same time; strategy.start_timeout is how long they wait for each other"
        )

    def _join(self) -> _Link:
        """Connect to the chief, as one of the others."""
        address = self.cluster.addresses[0]
        end = time.monotonic() + self._patience
        while True:
            try:
                connection = socket.create_connection(_parts(address), timeout=5.0)
            except OSError as error:
                if time.monotonic() > end:
                    raise ClusterError(
                        f"the chief at {address} was not there within {self._patience:g} s "
                        f"({error.strerror or error}). "
                        "strategy.start_timeout is how long workers wait for each other"
                    ) from None
                time.sleep(0.1)
            else:
                link = _Link(connection).wait(None)
                link.send({"hello": self.cluster.index, "job": self._job})
                return link

    def _listen(self, index: int, link: _Link) -> None:
        message = link.receive()
        if self._leaving or (message is not None and "bye" in message):
            return
        gone = index if message is None else message.get("lost", index)
        self._lost = f"worker {gone} at {self.cluster.addresses[gone]}"
        if self.is_chief:
            for other in self._links.values():  # the others have no links to each other
                other.send({"lost": gone})
        self._noticed.set()
        self._end(f"{self._lost} is gone")

    def _end(self, reason: str) -> None:
        """End this process if it has not ended by itself after GRACE seconds: a call into TensorFlow may hang."""
        time.sleep(GRACE)
        print(f"{reason}, and this worker could not end by itself within {GRACE:g} s", file=sys.stderr, flush=True)
        os._exit(Exit.TERMINATED)


class _Link:
    """Messages between two processes, a JSON object a line."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reader = connection.makefile("r", encoding="utf-8")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # detects a machine that is off, too
        for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def wait(self, seconds: float | None) -> _Link:
        """Set how long `receive` waits for a message; None: for ever."""
        self._connection.settimeout(seconds)
        return self

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message; that the other end is gone is detected by whoever listens to it."""
        with suppress(OSError):
            self._connection.sendall((json.dumps(message) + "\n").encode())

    def receive(self) -> dict[str, Any] | None:
        """Return the next message; None if the other end is gone, or sends something else."""
        try:
            line = self._reader.readline()
            return json.loads(line) if line else None
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        """Close the connection; the other end receives None."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._reader.close()  # it holds the connection open
        self._connection.close()


def _parts(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _listening(address: str) -> socket.socket:
    port = _parts(address)[1]
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind(("", port))
    except OSError as error:
        server.close()
        raise ClusterError(f"the chief cannot listen at {address}: {error.strerror}; is another run there?") from None
    server.listen(128)
    return server
