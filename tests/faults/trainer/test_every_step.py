"""A real training job killed in every step of a short run, on one replica and on two, then started again.

With Adam, batch statistics, dropout, random changes of the images, a shuffled order and two steps a call.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.killing import STEPS, assert_ended_alike, killed, whole

CALLS = [(replicas, call) for replicas in (1, 2) for call in range(1, STEPS * replicas + 1)]


@pytest.fixture(scope="module")
def untouched(runs: Path) -> dict[int, Path]:
    """The run that nothing happened to, by number of replicas."""
    found = {}
    for replicas in (1, 2):
        found[replicas] = whole(runs, f"strategy.replicas={replicas}").rename(runs / f"whole_{replicas}")
    return found


@pytest.mark.parametrize(("replicas", "call"), CALLS)
def test_killed_in_any_call_it_ends_as_if_it_had_not_been(
    runs: Path, untouched: dict[int, Path], replicas: int, call: int
) -> None:
    run = killed(runs, call, f"strategy.replicas={replicas}")
    assert_ended_alike(run, untouched[replicas])
    shutil.rmtree(run)
