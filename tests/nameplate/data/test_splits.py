from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from nameplate.data import splits
from nameplate.data.config import DataConfig
from nameplate.data.errors import DataError
from nameplate.data.source import Example, Memory, Source
from nameplate.data.splits import take
from tests.nameplate.data.reading import piped, whole


class Counting:
    """A source that holds nothing: example i is the number i."""

    def __init__(self, size: int) -> None:
        self.size = size

    def spec(self) -> Example:
        return tf.TensorSpec((), tf.int64), tf.TensorSpec((), tf.int64)

    def load(self, indices: tf.Tensor) -> Example:
        return indices, indices * 2

    def arrays(self) -> None:
        return None


def split(source: Source, config: DataConfig, **given: Any) -> Any:
    return splits.split(source, config, **given)


def in_memory(size: int) -> Memory:
    return Memory((np.arange(size), 2 * np.arange(size)))


@pytest.mark.parametrize("source", [in_memory(103), Counting(103)], ids=["memory", "other"])
@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.0), (0.2, 0.3), (0.0, 0.5), (0.5, 0.48)])
def test_each_example_is_in_exactly_one_part(source: Source, validation: float, test: float) -> None:
    parts = split(source, DataConfig(validation=validation, test=test))
    sources = [each for each in (parts.train, parts.validation, parts.test) if each is not None]
    held = np.concatenate([whole(each)[0] for each in sources])
    assert sorted(held) == list(range(103))
    assert (parts.validation is None) == (validation == 0)
    assert (parts.test is None) == (test == 0)


def test_the_same_examples_are_held_out_for_every_kind_of_source_and_others_by_another_seed() -> None:
    held = whole(split(in_memory(50), DataConfig(validation=0.2)).validation)[0]
    np.testing.assert_array_equal(held, whole(split(Counting(50), DataConfig(validation=0.2)).validation)[0])
    other = whole(split(in_memory(50), DataConfig(validation=0.2, split_seed=1)).validation)[0]
    assert held.tolist() != other.tolist()
    assert held.tolist() == HELD_OUT  # for ever: a resumed run must not train on what it validates on


def test_a_share_rounds_up_and_floats_do_not_count() -> None:
    assert split(Counting(100), DataConfig(validation=0.07)).validation.size == 7
    assert split(Counting(101), DataConfig(validation=0.07)).validation.size == 8


def test_a_given_part_takes_the_place_of_its_share() -> None:
    mine = Counting(5)
    parts = split(Counting(10), DataConfig(validation=0.5, test=0.1), validation=mine)
    assert parts.validation is mine
    assert (parts.train.size, parts.test.size) == (9, 1)


def test_shares_that_leave_nothing_are_refused() -> None:
    with pytest.raises(DataError, match=r"2 examples: data.validation=0.4 takes 1, data.test=0.4 takes 1"):
        split(Counting(2), DataConfig(validation=0.4, test=0.4))


@pytest.mark.parametrize("source", [in_memory(9), Counting(9)], ids=["memory", "other"])
def test_a_subset_loads_by_its_own_positions(source: Source) -> None:
    subset = take(source, np.array([8, 3, 5]))
    np.testing.assert_array_equal(piped(subset, [2, 0, 1, 1])[1], [10, 16, 6, 6])


def test_a_subset_of_a_subset_keeps_the_content_in_memory() -> None:
    held = take(take(in_memory(9), np.array([8, 3, 5])), np.array([1])).arrays()
    assert held is not None
    assert [leaf.tolist() for leaf in held] == [[3], [6]]


HELD_OUT = [2, 4, 10, 11, 22, 27, 28, 31, 38, 41]
