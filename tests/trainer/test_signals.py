from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from trainer.signals import STOPPING, StopRequest


@pytest.mark.parametrize("number", STOPPING)
def test_the_first_signal_is_noted_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in STOPPING]
    with StopRequest() as stop:
        os.kill(os.getpid(), number)
        assert stop.received is number
    assert [signal.getsignal(each) for each in STOPPING] == before


def test_the_second_signal_ends_the_process_at_once() -> None:
    program = """
import os, signal
from trainer.signals import StopRequest
with StopRequest():
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    print("still here")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGTERM
    assert done.stdout == ""
