"""`requeue.json` in a run's directory: there as long as the run was stopped by a signal and nobody has gone on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trainer.home import Home
from trainer.outcome import StoppedError


@contextmanager
def marked(home: Home | None, *, command: str) -> Iterator[None]:
    """Take an old mark away; leave a new one when a signal ends what is inside, for whoever starts jobs again.

    It says which signal came, after which step, and the command that goes on.
    """
    if home is None:
        yield
        return
    home.requeue.unlink(missing_ok=True)
    try:
        yield
    except StoppedError as error:
        mark = {"signal": error.received.name, "step": error.step, "command": command}
        with suppress(OSError):  # the exit code says it too, and a full disk must not hide it
            _replace(home.requeue, json.dumps(mark) + "\n")
        error.to_go_on(command)
        raise


def _replace(path: Path, text: str) -> None:
    fresh = path.with_suffix(".tmp")
    fresh.write_text(text, "utf-8")
    os.replace(fresh, path)
