"""Every test begins with the same seeds, whatever ran before it: see tests/conftest.py."""

from __future__ import annotations

import random

import keras
import numpy as np
import pytest

from tests.conftest import SEED


def drawn() -> list[float]:
    """Return a number of each generator that is everybody's."""
    numbers = [random.random(), np.random.random_sample(), keras.random.uniform(())]
    kernel = keras.layers.Dense(1, name="value")
    kernel.build((None, 1))
    return [float(each) for each in [*numbers, kernel.kernel.numpy()[0, 0]]]


@pytest.fixture(scope="module")
def of_module() -> list[float]:
    return drawn()


@pytest.mark.parametrize("_", ["first", "second"])
def test_g1_a_test_and_its_fixtures_draw_the_same_each_time(of_module: list[float], _: str) -> None:
    found = drawn()
    keras.utils.set_random_seed(SEED)
    assert found == of_module == drawn()


def test_g1_the_seed_of_the_order_seeds_nothing_else(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.option.randomly_reset_seed is False
