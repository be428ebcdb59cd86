"""Embeddings of every number of examples from 1 to 40, on 2 and on 4 replicas over TensorFlow's own collectives."""

from __future__ import annotations

import pytest

from tests.nameplate.engine.replication.test_embeddings import BEYOND, differences


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("replicas", [2, 4])
def test_b1_an_embedding_of_any_size_is_that_of_one_device(replicas: int) -> None:
    found = differences(replicas, list(range(1, 41)))
    assert len(found) == 80
    assert {name: value for name, value in found.items() if value > BEYOND} == {}
