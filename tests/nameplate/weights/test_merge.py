from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from nameplate import checkpoint as store
from nameplate.weights import merge
from nameplate.weights.merge import MergeError
from tests.nameplate.checkpoint.samples import same, snapshot

A: dict[str, np.ndarray] = {"w": np.array([1.0, 2.0], np.float32), "steps": np.array(7, np.int64)}
B: dict[str, np.ndarray] = {"w": np.array([3.0, -2.0], np.float32), "steps": np.array(7, np.int64)}


@pytest.mark.parametrize(
    ("merged", "expected"),
    [
        (merge.average([A, B]), [2, 0]),
        (merge.average([A, B], [3, 1]), [1.5, 1]),
        (merge.average([A]), [1, 2]),
        (merge.interpolate(A, B, 0), [1, 2]),
        (merge.interpolate(A, B, 1), [3, -2]),
        (merge.interpolate(A, B, 0.25), [1.5, 1]),
        (merge.interpolate(A, B, 2), [5, -6]),
        (merge.task_arithmetic(A, [B], [1]), [3, -2]),
        (merge.task_arithmetic(A, [B], [-1]), [-1, 6]),
        (merge.task_arithmetic(A, [B, B], [0.5, 0.25]), [2.5, -1]),
    ],
)
def test_values_and_dtypes(merged: dict[str, np.ndarray], expected: list[float]) -> None:
    assert same(merged["w"], np.array(expected, np.float32))
    assert same(merged["steps"], A["steps"])


def test_the_sum_is_rounded_once() -> None:
    many = [{"w": np.array([value], ml_dtypes.bfloat16)} for value in (256.0, 1.0, 1.0, 2.0)]
    assert merge.average(many, [1, 1, 1, 1])["w"][0] == ml_dtypes.bfloat16(65)


def test_all_differences_are_told_at_once() -> None:
    other: dict[str, np.ndarray] = {"w": np.zeros(3, np.float32), "extra": np.zeros(1)}
    with pytest.raises(MergeError, match="3 differences") as caught:
        merge.average([A, other])
    for word in ("steps: not in number 2", "extra: only in number 2", "w: "):
        assert word in str(caught.value)


def test_whole_numbers_that_differ_cannot_be_mixed() -> None:
    with pytest.raises(MergeError, match="steps: int64 with other values"):
        merge.average([A, B | {"steps": np.array(8, np.int64)}])


@pytest.mark.parametrize("shares", [[1], [1, -1], [0, 0], [1, 1, 1]])
def test_shares_that_make_no_sense_are_refused(shares: list[float]) -> None:
    with pytest.raises(MergeError, match="need 2 shares"):
        merge.average([A, B], shares)


def test_checkpoints_are_merged_as_they_lie(tmp_path: Path) -> None:
    paths = [store.save(tmp_path, snapshot(step)) for step in (1, 2)]
    with store.open(paths[0]) as one, store.open(paths[1]) as other:
        merged = merge.average([one.weights, other.weights])
    assert list(merged) == list(snapshot(1).weights) or set(merged) == set(snapshot(1).weights)
    assert merged["head/scale"] == 1.5
    assert merged["head/kernel"].dtype == ml_dtypes.bfloat16
