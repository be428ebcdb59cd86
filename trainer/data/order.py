"""The order of the examples: a permutation that is computed, not stored."""

from __future__ import annotations

import tensorflow as tf

# With 4 rounds, what `tf.random.experimental.index_shuffle` takes, the orders of two epochs of a million
# examples correlate by 0.95 and neighbours by 0.41 (tensorflow 2.21); with 12 both are what chance gives.
ROUNDS = 16


def shuffled(positions: tf.Tensor, *, epoch: tf.Tensor | int, seed: tf.Tensor | int, size: int) -> tf.Tensor:
    """Return which example stands at each position of an epoch: int64, in the shape (n,) of `positions`.

    Over the positions 0 to `size` - 1 every example comes once. The result depends on the arguments alone, so
    a run continues at any position without replaying the ones before. About 14 million positions a second on
    one core; the operation has a CPU kernel only.
    """
    key = tf.stack([tf.cast(_KEY, tf.int64), tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])
    return tf.raw_ops.RandomIndexShuffle(
        index=tf.cast(positions, tf.int64),
        seed=key,
        max_index=tf.constant(size - 1, tf.int64),
        rounds=ROUNDS,
    )


_KEY = 498247692  # the kernel wants three numbers; the same first one as index_shuffle gives
