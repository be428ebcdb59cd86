"""Replicas change nothing: the numbers of one device, on any number of them, in one process or in two."""

from __future__ import annotations

import numpy as np
import pytest

from tests.trainer.replication.cases import TRAININGS
from tests.trainer.replication.conftest import STRATEGIES, Results

# What is left is the order of summation: 1e-16 a sum in float64, 1e-7 in float32. Adam divides by the size of the
# gradient, so where one is nearly zero it makes 1e-16 into 1e-9 (its epsilon is 1e-7), and of that its own size.
PRECISE, ROUGH = {"rtol": 1e-7, "atol": 1e-8}, {"rtol": 1e-4, "atol": 1e-5}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("strategy_name", [name for name in STRATEGIES if name != "one device"])
@pytest.mark.parametrize("training", TRAININGS)
def test_every_number_is_that_of_one_device(results: Results, training: str, strategy_name: str) -> None:
    tolerance = PRECISE if TRAININGS[training].precise else ROUGH
    expected = {key: value for key, value in results["one device"].items() if key.startswith(f"{training}/")}
    wrong = {}
    for key, value in expected.items():
        if training == "own train_step" and key.endswith(("training metrics", "losses")):
            continue  # what a step of the user's own reports is the user's
        found = results[strategy_name][key]
        rough = {"rtol": 2e-6, "atol": 1e-6} if key.endswith("losses") else {}  # kept in float32
        if not np.allclose(found, value, **(tolerance | rough if TRAININGS[training].precise else tolerance)):  # type: ignore[arg-type]
            wrong[key] = float(np.max(np.abs(found - value)))
    assert wrong == {}
    assert expected


@pytest.mark.timeout(900)
@pytest.mark.parametrize("strategy_name", STRATEGIES)
def test_a_step_is_traced_once_and_a_smaller_last_one_once_more(results: Results, strategy_name: str) -> None:
    beyond = {key: int(value) for key, value in results[strategy_name].items() if key.endswith("/traces") and value}
    assert beyond == {}
