"""A process that writes and reads checkpoints for the fault tests, without TensorFlow.

`python -m tests.nameplate.checkpoint.writer` imports everything once. For each line `{"run": ..., "scenario": ...}`
it forks a child that stops itself, so that strace can be attached; it prints the child's pid, and its exit
status when it has ended.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from nameplate import checkpoint as store
from tests.nameplate.checkpoint.samples import snapshot

PASSED, REFUSED, CRASHED = 0, 1, 3

# prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY), for Yama's scope 1
_ANY_TRACER = (0x59616D61, ctypes.c_ulong(-1))

Say = Callable[[str], None]


def first(run: Path, say: Say) -> None:
    """The first save of a run."""
    store.probe(run / "checkpoints")
    say("probed")
    _save(run, say, step=1)


def following(run: Path, say: Say) -> None:
    """A save beside an older checkpoint, which then goes."""
    _save(run, say, step=2)


def replacing(run: Path, say: Say) -> None:
    """A save at a step that is there already, with another content."""
    _save(run, say, step=1, config="replaced\n")


def careless(run: Path, say: Say) -> None:
    """A save without fsync, which the tests must catch."""
    os.fsync = lambda fd: None
    _save(run, say, step=2)


def many(run: Path, say: Say) -> None:
    """A hundred saves, each of which deletes the one before."""
    for step in range(2, 102):
        _save(run, say, step=step)


def reading(run: Path, say: Say) -> None:
    """A whole read of the newest checkpoint."""
    opened = store.newest_good(run / "checkpoints", lambda path, error: say(f"damaged {path.name} {error}"))
    if opened is None:
        raise store.StoreError("nothing there")
    for group in opened.groups().values():
        dict(group)
    say(f"read {opened.step} {opened.config!r} {len(opened.model)}")


SCENARIOS: dict[str, Callable[[Path, Say], None]] = {
    "first": first,
    "following": following,
    "replacing": replacing,
    "careless": careless,
    "many": many,
    "reading": reading,
}


def _save(run: Path, say: Say, *, step: int, config: str = "new\n") -> None:
    directory = run / "checkpoints"
    with store.RunLock(run):
        path = store.save(directory, snapshot(step, config=config))
        say("saved")
        store.point(directory, "latest", path)
        say("pointed")
        deleted = store.keep(directory, last=1)
        say(f"kept, {len(deleted.failed)} failed")


def _child(run: Path, scenario: str) -> int:
    # type: ignore[assignment]  # the paths that strace is to watch
    secrets.token_hex = lambda nbytes=None: "0" * 8
    said = os.open(run.with_name(f"{run.name}.said"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)

    def say(text: str) -> None:
        os.write(said, f"{text}\n".encode())

    os.kill(os.getpid(), signal.SIGSTOP)
    try:
        SCENARIOS[scenario](run, say)
    except store.StoreError as error:
        say(f"refused: {error}")
        return REFUSED
    except BaseException:
        say(traceback.format_exc())
        return CRASHED
    return PASSED


def main() -> None:
    """Serve until the input ends."""
    ctypes.CDLL(None).prctl(*_ANY_TRACER, 0, 0, 0)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            ctypes.CDLL(None).prctl(*_ANY_TRACER, 0, 0, 0)
            os._exit(_child(Path(request["run"]), request["scenario"]))
        os.waitpid(child, os.WUNTRACED)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
