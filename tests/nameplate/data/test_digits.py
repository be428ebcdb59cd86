from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from nameplate.data import Field, open_dataset
from nameplate.data.config import DigitPairsConfig, DigitsConfig
from nameplate.data.digits import read_digits
from nameplate.data.errors import DataError
from tests.nameplate.data.reading import piped, whole


def test_the_digits_are_images_in_0_to_1_with_labels() -> None:
    data = open_dataset(DigitsConfig(), seed=0)
    assert data.inputs == {"image": Field((8, 8, 1), "float32")}
    assert (data.outputs, data.kinds) == ({"label": 10}, {"label": "classes"})
    assert data.classes == {"label": tuple("0123456789")}
    images, labels = whole(data.train)
    assert (images.min(), images.max(), labels.dtype) == (0, 1, np.int64)


def test_the_end_of_the_file_is_held_out_whatever_the_seed() -> None:
    images, labels = read_digits()
    for seed in (0, 1):
        data = open_dataset(DigitsConfig(), seed=seed)
        assert (data.train.size, data.validation.size, data.test) == (1437, 360, None)
        np.testing.assert_array_equal(whole(data.train)[0], images[:1437])
        np.testing.assert_array_equal(whole(data.validation)[1], labels[1437:])


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_any_share_has_the_ten_digits_alike(share: float) -> None:
    data = open_dataset(DigitsConfig(validation=share), seed=0)
    counts = np.bincount(whole(data.validation)[1], minlength=10)
    all_counts = np.bincount(read_digits()[1])
    np.testing.assert_allclose(counts, all_counts * data.validation.size / 1797, atol=1.5)


def test_the_parts_do_not_overlap_and_lose_nothing() -> None:
    data = open_dataset(DigitsConfig(validation=0.2, test=0.1), seed=0)
    parts = (data.train, data.test, data.validation)
    np.testing.assert_array_equal(np.concatenate([whole(each)[0] for each in parts]), read_digits()[0])


def test_loading_gives_what_the_arrays_hold_in_any_order_and_with_repeats() -> None:
    source = open_dataset(DigitsConfig(), seed=0).train
    order = [5, 1436, 0, 5, 77]
    for loaded, held in zip(piped(source, order), source.arrays(), strict=True):
        np.testing.assert_array_equal(loaded, held[order])


def test_data_in_memory_is_not_written_into_the_graph() -> None:
    source = open_dataset(DigitsConfig(), seed=0).train
    graph = tf.function(source.load).get_concrete_function(tf.TensorSpec([None], tf.int64)).graph
    assert graph.as_graph_def().ByteSize() < 10_000


def test_pairs_tell_whether_both_digits_are_the_same_and_their_sum() -> None:
    data = open_dataset(DigitPairsConfig(pairs=2), seed=0)
    assert list(data.inputs) == ["left", "right"]
    assert data.outputs == {"same": 2, "sum": 19}
    x, y = whole(data.train)
    label_of = {image.tobytes(): label for image, label in zip(*read_digits(), strict=True)}
    left, right = (np.array([label_of[each.tobytes()] for each in x[name]]) for name in ("left", "right"))
    np.testing.assert_array_equal(y["sum"], left + right)
    np.testing.assert_array_equal(y["same"], left == right)
    assert 0.5 < y["same"].mean() < 0.6


def test_no_digit_of_a_training_pair_is_held_out() -> None:
    data = open_dataset(DigitPairsConfig(), seed=0)
    train, held_out = (
        {image.tobytes() for name in ("left", "right") for image in whole(part)[0][name]}
        for part in (data.train, data.validation)
    )
    assert not train & held_out


def test_shares_that_leave_no_digit_are_refused() -> None:
    with pytest.raises(DataError, match="none are left to train on"):
        open_dataset(DigitsConfig(validation=0.5, test=0.4999), seed=0)
