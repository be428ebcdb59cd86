"""The workers of a run as processes that know of each other: they meet before training, and hear when one is gone.

TensorFlow's own engine moves the numbers. What it does not do is here: to wait for the others no longer than agreed,
to find that one was started with something else, to take the chief's word for where the run is, and to end within a
bounded time when a worker dies, also where a call into TensorFlow would never return.
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
_SHARED = (NotFiniteError, StoppedError)  # every worker comes to these at the same step


class WorkerLostError(NameplateError):
    """A worker that is gone; this one ends, to be started again with all others."""

    exit_code = Exit.TERMINATED


class Team:
    """One process among those of a cluster; enter it before TensorFlow's strategy is made.

    Each worker holds a connection to the chief, on the port where TensorFlow's server will listen afterwards. The
    kernel closes it when the process is gone, however it ended.
    """

    def __init__(self, cluster: Cluster, *, job: str, patience: float) -> None:
        """Take the workers, what this one was started with as a text, and how many seconds to wait for the others."""
        self.cluster, self._job, self._patience = cluster, job, patience
        self._links: dict[int, _Link] = {}
        self._leaving = False
        self._lost: str | None = None
        self._noticed = threading.Event()

    @property
    def is_chief(self) -> bool:
        """Say whether this process writes what the run keeps."""
        return self.cluster.is_chief

    def __enter__(self) -> Team:
        try:
            if self.is_chief:
                self._gather()
            else:
                self._links[0] = self._join()
        except BaseException:
            self._close()
            raise
        return self

    def tell(self, word: Mapping[str, Any]) -> None:
        """Give the chief's word to every worker."""
        for link in self._links.values():
            link.send(word)

    def hear(self) -> dict[str, Any]:
        """Return the chief's word.

        Raises:
            WorkerLostError: the chief is gone before it gave any.
        """
        word = self._links[0].receive()
        if word is None:
            raise WorkerLostError(f"the chief at {self.cluster.addresses[0]} ended before the run began")
        return word

    def watch(self) -> None:
        """Begin to listen for workers that go; call it when all words are spoken."""
        for index, link in self._links.items():
            link.wait(None)
            threading.Thread(target=self._listen, args=(index, link), name=f"worker {index}", daemon=True).start()

    def lost(self, seconds: float = 0.0) -> str | None:
        """Return which worker is gone, waiting so long for the news; None where all are there."""
        self._noticed.wait(seconds)
        return self._lost

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say goodbye where all workers come to this end; the others hear of any other end as of a death."""
        self._leaving = True
        if error is None or isinstance(error, _SHARED):
            self.tell({"bye": self.cluster.index})
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
                    link.close()  # somebody else, who came to the wrong port
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
            f"worker {', '.join(missing)} did not come within {self._patience:g} s. Start all workers at about the "
            "same time; strategy.start_timeout is how long they wait for each other"
        )

    def _join(self) -> _Link:
        """Find the chief, as one of the others."""
        address = self.cluster.addresses[0]
        end = time.monotonic() + self._patience
        while True:
            try:
                connection = socket.create_connection(_parts(address), timeout=5.0)
            except OSError as error:
                if time.monotonic() > end:
                    raise ClusterError(
                        f"the chief at {address} did not come within {self._patience:g} s ({error.strerror or error}); "
                        "strategy.start_timeout is how long the workers wait for each other"
                    ) from None
                time.sleep(0.1)
            else:
                link = _Link(connection).wait(None)
                link.send({"hello": self.cluster.index, "job": self._job})
                return link

    def _listen(self, index: int, link: _Link) -> None:
        word = link.receive()
        if self._leaving or (word is not None and "bye" in word):
            return
        gone = index if word is None else word.get("lost", index)
        self._lost = f"worker {gone} at {self.cluster.addresses[gone]}"
        if self.is_chief:
            for other in self._links.values():  # the others have no link to each other
                other.send({"lost": gone})
        self._noticed.set()
        self._end(f"{self._lost} is gone")

    def _end(self, reason: str) -> None:
        """End this process when it has not ended by itself after the grace: a call into TensorFlow may hang."""
        time.sleep(GRACE)
        print(f"{reason}, and this worker could not end by itself within {GRACE:g} s", file=sys.stderr, flush=True)
        os._exit(Exit.TERMINATED)


class _Link:
    """Words between two processes, a JSON object a line."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reader = connection.makefile("r", encoding="utf-8")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # finds a machine that is off, too
        for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def wait(self, seconds: float | None) -> _Link:
        """Let a word take so long to come; None: for ever."""
        self._connection.settimeout(seconds)
        return self

    def send(self, word: Mapping[str, Any]) -> None:
        """Send a word; one who is gone hears nothing, and that is found elsewhere."""
        with suppress(OSError):
            self._connection.sendall((json.dumps(word) + "\n").encode())

    def receive(self) -> dict[str, Any] | None:
        """Return the next word; None when the other end is gone or speaks another language."""
        try:
            line = self._reader.readline()
            return json.loads(line) if line else None
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        """Tell the other end that there are no more words."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._reader.close()  # a connection is closed when what reads from it is
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
