"""Replicas change nothing, in short: two of them against one device. `make faults` has the long table."""

from __future__ import annotations

from typing import Any

import pytest

from tests.long import cases as cases_of
from tests.nameplate.engine.replication import cases, zoo_cases
from tests.nameplate.engine.replication.comparing import wrong
from tests.nameplate.engine.replication.training import trained

SHORT = {
    "two outputs": cases.TRAININGS["two outputs"],
    "two outputs, means by weight": cases.TRAININGS["two outputs, means by weight"],
    "two outputs, batch statistics": cases.TRAININGS["two outputs, batch statistics"],
    "batch statistics": cases.TRAININGS["batch statistics"],
    "accumulated, clipped and averaged": cases.TRAININGS["accumulated, clipped and averaged, in float32"],
    "fewer examples than replicas": cases.TRAININGS["one example left alone"],
    "masked and weighted": cases.TRAININGS["masked and weighted"],
    "own compute_loss of what is kept": cases.TRAININGS["own compute_loss of what is kept"],
    "own train_step": cases.TRAININGS["own train_step"],
    "own train_step with batch statistics": cases.TRAININGS["own train_step with batch statistics"],
    "own train_step, one example left": cases.TRAININGS["own train_step, one example left"],
    "compiled": cases.TRAININGS["compiled"],
    "convnet": zoo_cases.TRAININGS["convnet, sgd"],
}

# Two of what others of the table have alone.
REPEATING = {
    "two outputs, means by weight",
    "two outputs, batch statistics",
    "own train_step with batch statistics",
    "own train_step, one example left",
}


@pytest.mark.parametrize("name", cases_of(SHORT, short=SHORT.keys() - REPEATING))
def test_two_replicas_give_the_numbers_of_one_device(strategy: Any, name: str) -> None:
    alone = trained(SHORT[name])
    with strategy.scope():
        mirrored = trained(SHORT[name])
    assert wrong(SHORT[name], mirrored, alone) == {}
    assert mirrored["traces"] == 0  # beyond those that are expected
