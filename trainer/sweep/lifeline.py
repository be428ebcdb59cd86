"""A pipe from a job to who started it: when that process is gone, or lets go, the job saves and ends."""

from __future__ import annotations

import os
import signal
import threading
import time

from trainer.signals import asked_to_stop

GRACE = 0.5  # seconds in which a signal that was sent to all processes arrives at the job too


def hold_on(descriptor: int) -> None:
    """Watch the reading end of the pipe; at its end ask this process to stop, unless a signal has done so already.

    A second signal would end the job at once, before it has saved.
    """
    threading.Thread(target=_watch, args=(descriptor,), name="lifeline", daemon=True).start()


def _watch(descriptor: int) -> None:
    while os.read(descriptor, 1):
        pass
    time.sleep(GRACE)
    if not asked_to_stop():
        os.kill(os.getpid(), signal.SIGTERM)
