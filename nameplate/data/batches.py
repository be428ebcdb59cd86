"""The order of a pass over the data, computed and not stored; its steps, in epochs; and each replica's share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

# `tf.random.experimental.index_shuffle` uses 4 rounds: the orders of two epochs of a million examples then correlate by
# 0.95, and neighbours by 0.41 (tensorflow 2.21). From 12 rounds on, both are as low as chance.
ROUNDS = 16


def shuffled(positions: tf.Tensor, *, epoch: tf.Tensor | int, seed: tf.Tensor | int, size: int) -> tf.Tensor:
    """Return the index of the example at each position of an epoch: int64, in the shape (n,) of `positions`.

    Over the positions 0 to `size` - 1 every example occurs once. The result depends on the arguments alone, so a run
    resumes at any position without replaying the earlier ones. About 14 million positions a second on one core; the
    operation has only a CPU kernel.
    """
    key = tf.stack([tf.cast(_KEY, tf.int64), tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])
    return tf.raw_ops.RandomIndexShuffle(
        index=tf.cast(positions, tf.int64),
        seed=key,
        max_index=tf.constant(size - 1, tf.int64),
        rounds=ROUNDS,
    )


_KEY = 498247692  # the kernel's seed is three numbers; this first one is also index_shuffle's


@dataclass(frozen=True)
class Share:
    """One replica's share of a step, in examples from the step's first; numbers, or scalars in a graph."""

    start: Any  # examples before it in the step
    length: Any  # examples in it
    part: Any  # its weight in the step's mean; the weights of all replicas add up to 1
    copies: int = 1  # replicas that have the same examples
    counts: bool = True  # its examples enter the metrics; false if another replica counts the same ones
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
        """Number of examples of the last step, if it is smaller than the others; else 0."""
        return self.size % self.batch

    @property
    def steps(self) -> int:
        """Number of steps of an epoch."""
        return self.full + bool(self.last)

    def shares(self, examples: int) -> list[Share]:
        """Divide a step's examples among the replicas, in order, in shares whose sizes differ by at most one.

        A step with fewer examples than replicas goes to all of them whole: each computes the update that one device
        would, batch statistics included, and no layer ever sees an empty batch.
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


@dataclass(frozen=True)
class Epoch:
    """An epoch of a training, and the pass over the data that it is part of; steps count over the whole training."""

    index: int
    first: int  # step
    end: int  # step after the last
    of_pass: int
    pass_first: int  # step at which the pass begins


@dataclass(frozen=True)
class Epochs:
    """How the steps of passes over the data make epochs, as Keras counts them.

    An epoch has `steps`, or a whole pass. It continues in the pass of the one before, and the last of a pass ends with
    it, however few steps are left. `first` is the epoch that the training begins with, at the start of a pass.
    """

    pass_steps: int
    steps: int | None = None
    first: int = 0
    per_call: int = 1  # steps that Keras takes at a time, even beyond `steps`

    @property
    def most(self) -> int:
        """Steps of an epoch unless the data ends before."""
        return min(in_whole_calls(self.steps or self.pass_steps, self.per_call), self.pass_steps)

    def short(self, epoch: Epoch) -> bool:
        """Say whether the data ends before the epoch has its steps."""
        return self.steps is not None and in_whole_calls(epoch.end - epoch.first, self.per_call) < self.steps

    def number(self, index: int) -> Epoch:
        """Return the epoch of an index."""
        passes, part = divmod(max(index - self.first, 0), self._of_a_pass)
        of_pass = min(index, self.first) + passes
        begins = of_pass * self.pass_steps
        first = begins + part * self.most
        return Epoch(index, first, min(first + self.most, begins + self.pass_steps), of_pass, begins)

    def at(self, step: int) -> Epoch:
        """Return the epoch that the step after the first `step` steps belongs to."""
        of_pass, within = divmod(step, self.pass_steps)
        before = min(of_pass, self.first)
        return self.number(before + (of_pass - before) * self._of_a_pass + within // self.most)

    @property
    def _of_a_pass(self) -> int:
        return -(-self.pass_steps // self.most)


def in_whole_calls(steps: int, per_call: int) -> int:
    """Return the steps that Keras takes where so many are asked for, `per_call` at a time."""
    return -(-steps // per_call) * per_call
