from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from nameplate.engine.signals import STOPPING, StopRequest


@pytest.mark.parametrize("number", STOPPING)
def test_the_first_signal_is_noted_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in STOPPING]
    with StopRequest() as stop:
        os.kill(os.getpid(), number)
        assert stop.received is number
    assert [signal.getsignal(each) for each in STOPPING] == before
    assert signal.set_wakeup_fd(-1) == -1


TWICE = """
import hashlib, os, signal, threading
from nameplate.engine.signals import StopRequest
with StopRequest():
    os.kill(os.getpid(), signal.SIGTERM)
    {second}
    print("still here")
"""


@pytest.mark.parametrize(
    "second",
    [
        "os.kill(os.getpid(), signal.SIGTERM)",
        # A call into C that lasts, as a long evaluation does: no Python handler runs until it returns.
        "threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start(); "
        "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)",
    ],
    ids=["in Python", "inside a call into C"],
)
def test_the_second_signal_ends_the_process_at_once(second: str) -> None:
    program = TWICE.format(second=second)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == -signal.SIGTERM
    assert done.stdout == ""
