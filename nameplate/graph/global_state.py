"""Contexts around work on a model: no garbage collection, deep recursion, random numbers that are not the caller's."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Pause Python's cyclic garbage collector.

    Work on a model makes objects by the hundred thousand, hardly any of them garbage, and the collector would scan them
    all again and again: tracing 50 layers would take up to twice as long.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextlib.contextmanager
def deep_graphs(nodes: int) -> Iterator[None]:
    """Raise the recursion limit for a graph with this many nodes in a row: Keras recurses once a node.

    Frames of Python 3.11 and later take no C stack, so only the limit stops the recursion.
    """
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 2 * nodes + 1000))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


class Mark(int):
    """The caller's seed, once our generator has started from it; a new seed of the caller's replaces it."""


@dataclass
class _Stream:
    started_at: Any = None  # the caller's state at that time
    state: Any = None  # of our generator
    depth: int = 0  # of nested contexts


_stream = _Stream()


@contextlib.contextmanager
def private_random_numbers(seed: Callable[[], int | None], mark: Callable[[int], None]) -> Iterator[None]:
    """Give Python's and NumPy's global generators a state of our own inside, and restore the caller's afterwards.

    Our state goes on from one context to the next, and restarts when the caller's own state has changed.

    Args:
        seed: returns what the caller seeded the framework with, or None.
        mark: replaces that seed by an equal integer.
    """
    callers, numpys = random.getstate(), np.random.get_state()
    if not _stream.depth:
        _enter(callers, seed(), mark)
    _stream.depth += 1
    try:
        yield
    finally:
        _stream.depth -= 1
        if not _stream.depth:
            _stream.state = random.getstate()
            random.setstate(callers)
            np.random.set_state(numpys)


def _enter(callers: Any, seed: int | None, mark: Callable[[int], None]) -> None:
    seeded_again = seed is not None and not isinstance(seed, Mark)
    if seeded_again or callers != _stream.started_at:
        _stream.started_at = callers
        digest = hashlib.sha256(repr(callers).encode()).hexdigest()
        _stream.state = random.Random(f"nameplate {digest}").getstate()
    if seed is not None and seeded_again:
        mark(Mark(seed))
    random.setstate(_stream.state)
    np.random.seed(random.getrandbits(32))
