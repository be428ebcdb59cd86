"""Ctrl-C where a command has nothing to save: one line and exit code 130, no traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

INTERRUPTED = 130  # as the shell has it

P = ParamSpec("P")


def interruptible(main: Callable[P, int]) -> Callable[P, int]:
    """Return a command's `main` that ends its process with `INTERRUPTED` on SIGINT; training handles that itself."""

    @wraps(main)
    def guarded(*arguments: P.args, **keywords: P.kwargs) -> int:
        try:
            return main(*arguments, **keywords)
        except KeyboardInterrupt:
            print("stopped by SIGINT", file=sys.stderr)
            sys.stdout.flush()
            sys.stderr.flush()
            # Not sys.exit: where the signal came inside `exec` (dataclasses use it), Python would die of it once more.
            os._exit(INTERRUPTED)

    return guarded
