"""When a job is given up: two rules over the best values that all have had by the same epoch."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from trainer.config.run_config import PruneConfig, PruneRule
from trainer.sweep.pruning import best_by, is_worse

OTHERS = [0.1, 0.2, 0.3, 0.4, 0.5]


@pytest.mark.parametrize(
    ("own", "upwards", "given_up"),
    [(0.31, False, True), (0.3, False, False), (0.29, True, True), (0.3, True, False), (math.inf, False, True)],
)
def test_the_median_of_the_others_decides(own: float, upwards: bool, given_up: bool) -> None:
    prune = PruneConfig(PruneRule.median, after_jobs=5)
    assert is_worse(own, OTHERS, 1, prune, upwards=upwards) is given_up


@pytest.mark.parametrize(("epochs", "others"), [(1, 5), (2, 4)])
def test_nobody_is_given_up_before_enough_epochs_and_jobs(epochs: int, others: int) -> None:
    prune = PruneConfig(PruneRule.median, after_epochs=2, after_jobs=5)
    assert not is_worse(9.0, OTHERS[:others], epochs, prune, upwards=False)


@pytest.mark.parametrize(
    ("own", "epochs", "given_up"),
    [(0.15, 1, False), (0.25, 1, True), (0.25, 2, False), (0.25, 3, True), (0.25, 9, True), (0.15, 9, False)],
)
def test_halving_keeps_the_best_third_at_its_rungs(own: float, epochs: int, given_up: bool) -> None:
    prune = PruneConfig(PruneRule.halving, after_jobs=2, factor=3)
    assert is_worse(own, OTHERS, epochs, prune, upwards=False) is given_up


def test_a_job_is_compared_by_the_best_it_had_by_then(tmp_path: Path) -> None:
    lines = [{"kind": "train", "epoch": 0, "loss": 0.0}]
    lines += [{"kind": "epoch", "epoch": epoch, "loss": loss} for epoch, loss in enumerate([3.0, 1.0, math.nan, 0.5])]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"kind": "ep')
    found = [best_by(tmp_path, "loss", epochs, upwards=False) for epochs in (1, 2, 3, 4, 5)]
    assert found == [3.0, 1.0, 1.0, 0.5, None]
    assert best_by(tmp_path / "nothing", "loss", 1, upwards=False) is None
