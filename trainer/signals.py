"""Signals that ask a run to stop: noted when they come, acted on between steps, and a second one ends at once."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType
from typing import Any

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopRequest:
    """While entered, the first stopping signal is kept in `received`; the second takes its default effect at once."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        for each in STOPPING:
            try:
                self._previous[each] = signal.signal(each, self._note)
            except ValueError:  # not the main thread: whoever owns it owns the signals
                break
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for each, handler in self._previous.items():
            signal.signal(each, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received is None:
            self.received = signal.Signals(number)
            return
        # Whoever asks twice does not want to wait: no handler, no cleaning up, the last checkpoint is good.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
