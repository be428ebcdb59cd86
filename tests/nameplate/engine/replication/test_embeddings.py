"""Embeddings on several replicas: the rows of their gradients may be of any number, in any step."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from nameplate.engine import collectives
from tests.nameplate.engine.replication import cases
from tests.nameplate.engine.replication.comparing import wrong
from tests.nameplate.engine.replication.training import trained

BEYOND = 1e-9  # float64: Adam makes 1e-16 of a gradient that is nearly zero into 1e-9 at most


def differences(replicas: int, sizes: list[int]) -> dict[str, float]:
    """Return how far embeddings are from one device's, by kind of data and number of examples."""
    command = [sys.executable, "-m", "tests.nameplate.engine.replication.embeddings", str(replicas), json.dumps(sizes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("sizes", [[9], pytest.param([20, 3], marks=pytest.mark.long)])
def test_b1_rows_that_change_within_a_call_cross_between_replicas_of_plain_tensorflow(sizes: list[int]) -> None:
    """Batches of 8, the last of them smaller; with sentences padded to the longest of each batch too."""
    found = differences(2, sizes)
    assert len(found) == 2 * len(sizes)
    assert {name: value for name, value in found.items() if value > BEYOND} == {}


@pytest.mark.parametrize("name", ["masked, four examples left", "embedding with an optimizer of its own"])
def test_b1_embeddings_on_two_replicas_give_the_numbers_of_one_device(strategy: Any, name: str) -> None:
    training = cases.TRAININGS[name]
    alone = trained(training)
    with strategy.scope():
        mirrored = trained(training)
    assert wrong(training, mirrored, alone) == {}


def test_b1_rows_are_joined_in_the_order_of_the_replicas() -> None:
    own = [tf.IndexedSlices(np.full((n, 2), n, "float32"), range(n), (9, 2)) for n in (3, 0, 1)]
    every = collectives.joined_rows(own)
    np.testing.assert_array_equal(every.values[:, 0], [3, 3, 3, 1])
    np.testing.assert_array_equal(every.indices, [0, 1, 2, 0])
    assert collectives.joined_rows(own[0]) is own[0]
