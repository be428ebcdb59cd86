"""How many steps one call to the graph makes: as many as take about half a second."""

from __future__ import annotations

from trainer.workers.exchange import exchanged

SECONDS = 0.5  # so long a signal waits, and a progress bar stands still
FIRST = 2  # steps of the first call, which also traces
GROWTH = 8  # a call makes at most so many times the steps of the one before


class Pace:
    """Chooses the steps of each call from how long the last one took."""

    def __init__(self, at_most: int | None, *, by_batch: bool, per_hook: int = 1) -> None:
        self.by_batch = by_batch  # Python runs every `per_hook` steps, because a callback asks for it
        self._most = per_hook if by_batch else at_most
        self._count = self._most or FIRST
        self._calls = 0

    def steps(self, left: int) -> int:
        """Return the steps of the next call, when `left` remain until the next event; the same on all workers."""
        count = self._count if self._most else int(exchanged([self._count]).min())
        return max(1, min(left, count))

    def took(self, count: int, seconds: float) -> None:
        """Learn how long a call of `count` steps took; the first is not counted, it traces."""
        self._calls += 1
        if self._most is None and self._calls > 1:
            fitting = int(SECONDS * count / max(seconds, 1e-6))
            self._count = max(1, min(fitting, self._count * GROWTH))
