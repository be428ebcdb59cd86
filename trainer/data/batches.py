"""How an epoch falls into steps, and a step into shares: plain arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Share:
    """One replica's part of a step, relative to the step's first example; numbers, or scalars of a graph."""

    start: Any  # examples before it in the step
    length: Any  # examples in it
    part: Any  # its weight in the step's mean; those of all replicas add up to 1
    copies: int = 1  # replicas that hold the same examples
    counts: bool = True  # its examples enter the metrics; false where another replica counts the same ones
    step: Any = None  # examples of the whole step


@dataclass(frozen=True)
class Batches:
    """An epoch of `size` examples in steps of `batch`, shared by `replicas`."""

    size: int
    batch: int
    replicas: int

    @property
    def full(self) -> int:
        """Number of steps with all their examples."""
        return self.size // self.batch

    @property
    def last(self) -> int:
        """Number of examples of the last, smaller step; 0: there is none."""
        return self.size % self.batch

    @property
    def steps(self) -> int:
        """Number of steps of an epoch."""
        return self.full + bool(self.last)

    def shares(self, examples: int) -> list[Share]:
        """Divide a step's examples among the replicas, in order, sizes apart by one at most.

        A step with fewer examples than replicas goes whole to each of them: every replica computes the whole step,
        which gives one device's update, batch statistics included, and no layer ever sees an empty batch.
        """
        if examples < self.replicas:
            part = 1 / self.replicas
            return [
                Share(0, examples, part, self.replicas, counts=replica == 0, step=examples)
                for replica in range(self.replicas)
            ]
        size, more = divmod(examples, self.replicas)
        lengths = [size + (replica < more) for replica in range(self.replicas)]
        return [
            Share(replica * size + min(replica, more), length, length / examples, step=examples)
            for replica, length in enumerate(lengths)
        ]
