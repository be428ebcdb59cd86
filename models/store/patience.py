"""Network file systems lose handles of files that another machine replaced: ask again, a few times."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_PAUSES = (
    0.0,
    0.05,
    0.2,
    0.5,
)  # seconds; a second look by name gets a fresh handle, the rest is for a slow server


def patiently(action: Callable[[], T]) -> T:
    """Return `action()`, repeated while it fails with ESTALE, five times at most."""
    for pause in _PAUSES:
        try:
            return action()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            time.sleep(pause)
    return action()
