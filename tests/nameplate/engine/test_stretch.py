"""The steps of an epoch are all made once by some graph, and their shares in it are those of plain numbers."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from nameplate.data.batches import Batches
from nameplate.engine.step_ranges import shares_at, stretches

EPOCHS = st.builds(
    lambda replicas, of_each, full, last: Batches(replicas * of_each * full + last, replicas * of_each, replicas),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(0, 19),
)


@given(EPOCHS, st.data(), st.booleans())
def test_every_step_is_made_once_and_in_order(batches: Batches, data: Any, apart: bool) -> None:
    first = data.draw(st.integers(0, batches.steps - 1))
    count = data.draw(st.integers(1, batches.steps - first))
    found = stretches(batches, first, count, apart=apart)
    assert [step for each in found for step in range(each.first, each.first + each.count)] == [
        *range(first, first + count)
    ]
    for each in found:
        smaller = [step >= batches.full for step in range(each.first, each.first + each.count)]
        assert each.last is None or set(smaller) == {each.last}
    assert all(each.last is not None for each in found) or not apart
    assert len(found) == 1 or apart or batches.last < batches.replicas


@given(EPOCHS, st.data())
def test_shares_in_a_graph_are_those_of_plain_numbers(batches: Batches, data: Any) -> None:
    step = data.draw(st.integers(0, batches.steps - 1))
    (each,) = stretches(batches, step, 1)
    found = shares_at(batches, tf.constant(step, tf.int64), last=each.last)
    expected = batches.shares(batches.last if step >= batches.full else batches.batch)
    assert [(int(share.start), int(share.length), float(share.part)) for share in found] == [
        (share.start, share.length, share.part) for share in expected
    ]
    assert [(share.copies, share.counts) for share in found] == [(share.copies, share.counts) for share in expected]
    assert len({isinstance(share.length, tf.Tensor) for share in found}) == 1, "static shapes differ by replica"
