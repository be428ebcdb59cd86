"""Every step of an epoch is made once by some trace, with the shares of plain numbers."""

from __future__ import annotations

from typing import Any

import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from nameplate.data.batches import Batches
from nameplate.engine.step_ranges import FIRST, GROWTH, SECONDS, StepsPerCall, shares_at, step_ranges

EPOCHS = st.builds(
    lambda replicas, of_each, full, last: Batches(replicas * of_each * full + last, replicas * of_each, replicas),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(0, 19),
)


@given(EPOCHS, st.data(), st.booleans())
def test_every_step_is_made_once_and_in_order(batches: Batches, data: Any, by_shape: bool) -> None:
    first = data.draw(st.integers(0, batches.steps - 1))
    count = data.draw(st.integers(1, batches.steps - first))
    found = step_ranges(batches, first, count, by_shape=by_shape)
    assert [step for each in found for step in range(each.first, each.first + each.count)] == [
        *range(first, first + count)
    ]
    for each in found:
        smaller = [step >= batches.full for step in range(each.first, each.first + each.count)]
        assert each.last is None or set(smaller) == {each.last}
    assert all(each.last is not None for each in found) or not by_shape
    assert len(found) == 1 or by_shape or batches.last < batches.replicas


@given(EPOCHS, st.data())
def test_shares_in_a_graph_are_those_of_plain_numbers(batches: Batches, data: Any) -> None:
    step = data.draw(st.integers(0, batches.steps - 1))
    (each,) = step_ranges(batches, step, 1)
    found = shares_at(batches, tf.constant(step, tf.int64), last=each.last)
    expected = batches.shares(batches.last if step >= batches.full else batches.batch)
    assert [(int(share.start), int(share.length), float(share.part)) for share in found] == [
        (share.start, share.length, share.part) for share in expected
    ]
    assert [(share.copies, share.counts) for share in found] == [(share.copies, share.counts) for share in expected]
    assert len({isinstance(share.length, tf.Tensor) for share in found}) == 1, "static shapes differ by replica"


def test_a_callback_with_batch_hooks_makes_every_call_one_step() -> None:
    assert StepsPerCall(None, by_batch=True).steps(100) == 1


@pytest.mark.parametrize(("left", "expected"), [(100, 7), (3, 3), (0, 1)])
def test_a_call_makes_what_is_asked_for_and_stops_at_the_event(left: int, expected: int) -> None:
    assert StepsPerCall(7, by_batch=False).steps(left) == expected


def test_fast_steps_make_larger_calls_and_slow_ones_smaller() -> None:
    chosen = StepsPerCall(None, by_batch=False)
    counts = []
    for seconds in (9.0, 0.001, 3.0):
        counts.append(chosen.steps(10**6))
        chosen.took(counts[-1], seconds)
    counts.append(chosen.steps(10**6))
    assert counts[0] == counts[1] == FIRST  # the first call traces, so its time says nothing
    assert counts[2] == FIRST * GROWTH
    assert counts[3] == int(SECONDS * counts[2] / 3.0)
