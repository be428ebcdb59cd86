from __future__ import annotations

import time

import pytest

from trainer import pace


def test_a_callback_with_batch_hooks_makes_every_call_one_step() -> None:
    assert pace.Pace(None, by_batch=True).steps(100) == 1


@pytest.mark.parametrize(("left", "expected"), [(100, 7), (3, 3), (0, 1)])
def test_a_call_makes_what_is_asked_for_and_stops_at_the_event(left: int, expected: int) -> None:
    assert pace.Pace(7, by_batch=False).steps(left) == expected


def test_fast_steps_make_larger_calls_and_slow_ones_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 9.0, 10.0, 10.001, 20.0, 23.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    chosen = pace.Pace(None, by_batch=False)
    counts = []
    for _ in range(3):
        counts.append(chosen.steps(10**6))
        with chosen.timed(counts[-1]):
            pass
    counts.append(chosen.steps(10**6))
    assert counts[0] == counts[1] == pace.FIRST  # the first call traces, so its time says nothing
    assert counts[2] == pace.FIRST * pace.GROWTH
    assert counts[3] == int(pace.SECONDS * counts[2] / 3.0)
