"""Python's collector of cycles, paused while live objects are made by the hundred thousand, and no garbage."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Work on a model or trace its graph without the collector, which would look through all of it time and again.

    With it, tracing 50 layers takes up to twice as long.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class Mark(int):
    """A seed that the stream has begun from: equal to the caller's, and gone when the caller sets it again."""


@dataclass
class _Stream:
    began_at: Any = None  # the caller's state
    state: Any = None  # of the stream
    depth: int = 0  # of verbs within verbs


_stream = _Stream()


@contextlib.contextmanager
def own(seed: Callable[[], int | None], mark: Callable[[int], None]) -> Iterator[None]:
    """Let Python's and NumPy's global generators be the stream inside, and the caller's again behind.

    Args:
        seed: gives what the caller seeded the framework with, None where that never happened.
        mark: puts an equal integer in its place.
    """
    theirs, numpys = random.getstate(), np.random.get_state()
    if not _stream.depth:
        _enter(theirs, seed(), mark)
    _stream.depth += 1
    try:
        yield
    finally:
        _stream.depth -= 1
        if not _stream.depth:
            _stream.state = random.getstate()
            random.setstate(theirs)
            np.random.set_state(numpys)


def _enter(theirs: Any, seed: int | None, mark: Callable[[int], None]) -> None:
    seeded_again = seed is not None and not isinstance(seed, Mark)
    if seeded_again or theirs != _stream.began_at:
        _stream.began_at = theirs
        digest = hashlib.sha256(repr(theirs).encode()).hexdigest()
        _stream.state = random.Random(f"nameplate {digest}").getstate()
    if seed is not None and seeded_again:
        mark(Mark(seed))
    random.setstate(_stream.state)
    np.random.seed(random.getrandbits(32))
