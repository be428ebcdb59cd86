"""Signals that ask a run to stop: the first is acted on between steps, a second ends the process at once."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import threading
import weakref
from types import FrameType, TracebackType
from typing import Any

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopRequest:
    """Inside, the first stopping signal is kept in `received`; the second has its default effect at once.

    Python runs a handler only between two of its own instructions, and a long evaluation is a single call into the
    graph. So a thread watches as well: it learns of every signal when it arrives.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}
        self._watch: _Watch | None = None

    @property
    def asked(self) -> bool:
        """Say whether a signal has arrived, including one that Python has not handled yet."""
        return self.received is not None or (self._watch is not None and self._watch.stopping > 0)

    def __enter__(self) -> StopRequest:
        _entered.add(self)
        try:
            for stopping in STOPPING:
                self._previous[stopping] = signal.signal(stopping, self._note)
        except ValueError:  # not the main thread, which alone may handle signals
            return self
        self._watch = _Watch()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._watch is not None:
            self._watch.close()
        for stopping, handler in self._previous.items():
            signal.signal(stopping, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received is None:
            self.received = signal.Signals(number)
            return
        _end(number)


class _Watch:
    """A thread that reads the numbers of signals from a socket that the interpreter's C handler writes to."""

    def __init__(self) -> None:
        self.stopping = 0  # number of stopping signals so far
        self._reading, self._writing = socket.socketpair()
        self._writing.setblocking(False)
        self._previous = signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._read, name="signals", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and restore the interpreter's wakeup descriptor."""
        signal.set_wakeup_fd(self._previous)
        self._writing.close()  # the thread reads the end of the stream
        self._thread.join()
        self._reading.close()

    def _read(self) -> None:
        while received := self._reading.recv(64):
            for number in received:
                self.stopping += number in STOPPING
                if self.stopping > 1:
                    _end(number)


_entered: weakref.WeakSet[StopRequest] = weakref.WeakSet()


def asked_to_stop() -> bool:
    """Say whether a signal has asked this process to stop."""
    return any(request.asked for request in list(_entered))


def _end(number: int) -> None:
    """Die of the signal: whoever sends two does not want to wait, and the last checkpoint is intact.

    `signal.signal` is for the main thread only; the C function beneath it may be called from any.
    """
    ctypes.pythonapi.PyOS_setsig(ctypes.c_int(number), ctypes.c_void_p(int(signal.SIG_DFL)))
    os.kill(os.getpid(), number)
