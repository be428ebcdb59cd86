from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from nameplate.data.batches import shuffled


def order(size: int, *, epoch: int = 0, seed: int = 0) -> np.ndarray:
    return shuffled(tf.range(size, dtype=tf.int64), epoch=epoch, seed=seed, size=size).numpy()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1437])
@pytest.mark.parametrize("seed", [0, 2**31 - 1])
def test_every_example_comes_once_an_epoch(size: int, seed: int) -> None:
    for epoch in range(3):
        assert sorted(order(size, epoch=epoch, seed=seed)) == list(range(size))


def test_another_epoch_and_another_seed_give_another_order() -> None:
    orders = [order(1000), order(1000, epoch=1), order(1000, seed=1), order(1000, epoch=1, seed=1)]
    assert len({tuple(each.tolist()) for each in orders}) == 4


def test_a_part_of_the_positions_gives_that_part_of_the_order() -> None:
    part = shuffled(tf.range(300, 420, dtype=tf.int64), epoch=5, seed=3, size=1000)
    assert part.dtype == tf.int64
    np.testing.assert_array_equal(part, order(1000, epoch=5, seed=3)[300:420])


def test_the_order_in_a_pipeline_is_that_outside_of_it() -> None:
    @tf.function
    def in_graph(epoch: tf.Tensor) -> tf.Tensor:
        return shuffled(tf.range(50, dtype=tf.int64), epoch=epoch, seed=4, size=50)

    pipeline = tf.data.Dataset.range(50).batch(8).map(lambda i: shuffled(i, epoch=9, seed=4, size=50))
    np.testing.assert_array_equal(np.concatenate([each.numpy() for each in pipeline]), order(50, epoch=9, seed=4))
    np.testing.assert_array_equal(in_graph(tf.constant(9, tf.int64)), order(50, epoch=9, seed=4))


def test_the_order_never_changes() -> None:
    # A resumed run relies on it, also after an update of TensorFlow.
    assert order(10).tolist() == GOLDEN


def test_neighbours_and_epochs_are_unrelated() -> None:
    # What tf.random.experimental.index_shuffle gives with its 4 rounds correlates by 0.41 and by 0.95 here.
    first, second = order(1_000_000), order(1_000_000, epoch=1)
    chance = 5 / np.sqrt(len(first))  # five standard deviations of a correlation of unrelated orders
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < chance
    assert abs(np.corrcoef(first, second)[0, 1]) < chance
    assert abs(np.corrcoef(first, np.arange(len(first)))[0, 1]) < chance


GOLDEN = [3, 0, 5, 4, 8, 7, 9, 2, 6, 1]
