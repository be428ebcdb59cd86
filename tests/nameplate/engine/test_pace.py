from __future__ import annotations

import pytest

from nameplate.engine import step_ranges


def test_a_callback_with_batch_hooks_makes_every_call_one_step() -> None:
    assert step_ranges.Pace(None, by_batch=True).steps(100) == 1


@pytest.mark.parametrize(("left", "expected"), [(100, 7), (3, 3), (0, 1)])
def test_a_call_makes_what_is_asked_for_and_stops_at_the_event(left: int, expected: int) -> None:
    assert step_ranges.Pace(7, by_batch=False).steps(left) == expected


def test_fast_steps_make_larger_calls_and_slow_ones_smaller() -> None:
    chosen = step_ranges.Pace(None, by_batch=False)
    counts = []
    for seconds in (9.0, 0.001, 3.0):
        counts.append(chosen.steps(10**6))
        chosen.took(counts[-1], seconds)
    counts.append(chosen.steps(10**6))
    assert counts[0] == counts[1] == step_ranges.FIRST  # the first call traces, so its time says nothing
    assert counts[2] == step_ranges.FIRST * step_ranges.GROWTH
    assert counts[3] == int(step_ranges.SECONDS * counts[2] / 3.0)
