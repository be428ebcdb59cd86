from __future__ import annotations

import pytest

from trainer.replicas import pace


def test_a_callback_with_batch_hooks_makes_every_call_one_step() -> None:
    assert pace.Pace(None, by_batch=True).steps(100) == 1


@pytest.mark.parametrize(("left", "expected"), [(100, 7), (3, 3), (0, 1)])
def test_a_call_makes_what_is_asked_for_and_stops_at_the_event(left: int, expected: int) -> None:
    assert pace.Pace(7, by_batch=False).steps(left) == expected


def test_fast_steps_make_larger_calls_and_slow_ones_smaller() -> None:
    chosen = pace.Pace(None, by_batch=False)
    counts = []
    for seconds in (9.0, 0.001, 3.0):
        counts.append(chosen.steps(10**6))
        chosen.took(counts[-1], seconds)
    counts.append(chosen.steps(10**6))
    assert counts[0] == counts[1] == pace.FIRST  # the first call traces, so its time says nothing
    assert counts[2] == pace.FIRST * pace.GROWTH
    assert counts[3] == int(pace.SECONDS * counts[2] / 3.0)
