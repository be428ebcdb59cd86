from __future__ import annotations

import math
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from nameplate import checkpoint as store
from nameplate.weights import named
from nameplate.weights.named import WeightsError
from tests.nameplate.checkpoint.samples import snapshot

NAMES = [
    "stem/kernel",
    "stem/bias",
    "backbone/stem/kernel",
    "backbone/stage1/conv/kernel",
    "head/kernel",
    "header/kernel",
]
ALL = {name: np.full(2, index, np.float32) for index, name in enumerate(NAMES)}


@pytest.mark.parametrize(
    ("patterns", "selected"),
    [
        (["stem/kernel"], ["stem/kernel"]),
        (["stem"], ["stem/kernel", "stem/bias"]),
        (["head"], ["head/kernel"]),
        (["backbone"], ["backbone/stem/kernel", "backbone/stage1/conv/kernel"]),
        (["*/bias"], ["stem/bias"]),
        (["*kernel"], [name for name in NAMES if name.endswith("kernel")]),
        (["backbone/stage[12]*"], ["backbone/stage1/conv/kernel"]),
        (["head", "stem/bias"], ["stem/bias", "head/kernel"]),
        ([], []),
    ],
)
def test_a_pattern_selects_whole_components_unless_it_says_otherwise(patterns: list[str], selected: list[str]) -> None:
    assert list(named.select(ALL, patterns)) == selected


def test_a_layer_selects_its_slots_too() -> None:
    slots = {"stem/kernel@momentum": np.zeros(1), "stem_2/kernel@momentum": np.zeros(1)}
    assert list(named.select(slots, ["stem"])) == ["stem/kernel@momentum"]
    assert list(named.select(slots, ["stem/kernel"])) == ["stem/kernel@momentum"]


def test_patterns_that_match_nothing_are_all_reported_with_the_nearest() -> None:
    with pytest.raises(WeightsError, match="2 patterns match none of the 6 names") as caught:
        named.select(ALL, ["stem", "bakbone", "head/kernl"])
    assert "'bakbone' Did you mean 'backbone'" in str(caught.value)
    assert "'head/kernl' Did you mean 'head/kernel'" in str(caught.value)


def test_a_partition_has_every_name_once_in_order() -> None:
    inside, outside = named.partition(ALL, lambda name: "stem" in name)
    assert list(inside) == ["stem/kernel", "stem/bias", "backbone/stem/kernel"]
    assert list(outside) == ["backbone/stage1/conv/kernel", "head/kernel", "header/kernel"]
    assert inside["stem/bias"] is ALL["stem/bias"]
    with pytest.raises(KeyError):
        outside["stem/bias"]


def test_what_is_only_selected_is_not_read(tmp_path: Path) -> None:
    path = store.save(tmp_path, snapshot())
    with store.open(path) as opened:
        record = opened.weights.records["head/scale"]
        data = bytearray((path / record.file).read_bytes())
        data[record.offset] ^= 1
        (path / record.file).write_bytes(data)
        assert len(dict(named.select(opened.weights, ["stem_conv"]))) == 2  # head/scale would raise


def test_map_hands_every_name_and_array_over() -> None:
    assert named.map(ALL, lambda name, array: array + len(name))["head/kernel"].tolist() == [15, 15]


def test_a_difference_accounts_for_every_name_on_both_sides() -> None:
    a = {"same": np.ones(2), "moved": np.zeros(2), "shape": np.ones(2), "dtype": np.ones(2), "a": np.ones(1)}
    b = {
        "same": np.ones(2),
        "moved": np.array([0.0, -3.0]),
        "shape": np.ones((2, 1)),
        "dtype": np.ones(2, np.float32),
        "b": np.ones(1),
    }
    found = named.difference(a, b)
    assert (found.only_a, found.only_b, found.same) == (("a",), ("b",), ("same",))
    assert found.shape == {"shape": ((2,), (2, 1))}
    assert found.dtype == {"dtype": (np.dtype(np.float64), np.dtype(np.float32))}
    assert found.moved == {"moved": named.Move(3.0, math.inf), "dtype": named.Move(0.0, 0.0)}
    assert not found.empty
    assert named.difference(a, a).empty


@pytest.mark.parametrize(
    ("one", "other", "largest", "relative"),
    [
        (np.array([3.0, 4.0]), np.array([3.0, 4.5]), 0.5, 0.1),
        (np.array([], np.float32), np.array([], np.float32), 0, 0),
        (np.array(2, np.float32), np.array(1, np.float32), 1, 0.5),
        (np.array([1.0, math.inf, math.nan]), np.array([1.0, math.inf, math.nan]), 0, math.nan),
        (np.array([1.0]), np.array([math.inf]), math.inf, math.inf),
        (np.array([1.0]), np.array([math.nan]), math.nan, math.nan),
        (np.array([True, False]), np.array([True, True]), 1, 1),
        (np.array([1], np.int64), np.array([-1], np.int64), 2, 2),
        (np.array([1], ml_dtypes.bfloat16), np.array([1.5], ml_dtypes.bfloat16), 0.5, 0.5),
        (np.array([3 + 4j], np.complex64), np.array([0], np.complex64), 5, 1),
        (np.array([0.0]), np.array([-0.0]), 0, 0),
    ],
)
def test_how_far_one_array_is_from_another(one: np.ndarray, other: np.ndarray, largest: float, relative: float) -> None:
    move = named.distance(one, other)
    assert move.largest == pytest.approx(largest, nan_ok=True)
    assert move.relative == pytest.approx(relative, nan_ok=True)
