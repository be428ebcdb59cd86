"""Histograms are those that TensorBoard's own functions make."""

from __future__ import annotations

import numpy as np
import pytest
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.util.tensor_util import make_ndarray

from nameplate.training.tensorboard import buckets

NUMBERS = np.random.default_rng(0)
VALUES = {
    "normal": NUMBERS.normal(size=(3, 5, 7)).astype("float32"),
    "double": NUMBERS.normal(1e6, 1e-3, 1000),
    "half": NUMBERS.normal(size=100).astype("float16"),
    "integers": np.arange(7),
    "two": np.array([-1.0, 1.0], "float32"),
    "all the same": np.full((4, 3), 0.1, "float32"),
    "neighbours": np.array([1.0, np.nextafter(1.0, 2.0)]),
    "one": np.full((), 3.0, "float32"),
    "none": np.zeros((0, 3), "float32"),
}


@pytest.mark.parametrize("kind", VALUES)
def test_the_buckets_are_those_of_tensorboard(kind: str) -> None:
    (expected,) = histogram_pb("histogram", VALUES[kind]).value
    np.testing.assert_allclose(buckets(VALUES[kind]), make_ndarray(expected.tensor), rtol=1e-6)


def test_what_is_not_finite_is_left_out() -> None:
    values = np.array([np.nan, 1.0, np.inf, 2.0, -np.inf], "float32")
    np.testing.assert_array_equal(buckets(values), buckets(np.array([1.0, 2.0], "float32")))
