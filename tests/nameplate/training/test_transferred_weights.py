"""A tower that was trained on pairs moves to a model of single digits: taken by name, frozen, saved, resumed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from nameplate import checkpoint as store
from nameplate.errors import NameplateError
from nameplate.section import ConfigError
from tests.trainer.running import about, assert_same, content, train
from trainer.config import run_config

pytestmark = pytest.mark.usefixtures("strategy")

TOWER = ["model.width=4", "model.features=8", "fit.steps=2", "strategy=single"]
MOVED = [
    "experiment=transfer_digits",
    "before=null",
    "~init.unfreeze.30",
    "~optimizer.rates.tower",
    *TOWER,
    "fit.global_batch=8",
    "checkpoint.every_steps=1",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return runs with one called `pairs`."""
    folder = tmp_path_factory.mktemp("runs")
    train(folder, "experiment=digit_pairs", "data.pairs=1", *TOWER, "run=pairs")
    return folder


def test_the_tower_is_taken_by_name_stays_as_it_was_and_the_head_learns(runs: Path) -> None:
    train(runs, *MOVED, f"init.path={runs / 'pairs'}", "run=moved")
    before, after, first = content(runs / "pairs"), content(runs / "moved"), content(runs / "moved", step=1)
    tower = [name for name in after if name.startswith("weights:tower/")]

    assert len(tower) == 17
    assert_same({name: before[name] for name in tower}, {name: after[name] for name in tower})
    assert not np.array_equal(first["weights:label/kernel"], after["weights:label/kernel"])
    assert not [name for name in after if name.startswith("optimizer:tower/")]
    origin = about(runs / "moved")["origins"]["tower/conv1/kernel"]
    assert origin["name"] == "tower/conv1/kernel"
    assert "pairs" in origin["file"]


def test_a_run_that_goes_on_freezes_the_same_layers(runs: Path) -> None:
    options = [*MOVED, f"init.path={runs / 'pairs'}", "run=again"]
    train(runs, *options)
    whole = content(runs / "again")
    shutil.rmtree(store.checkpoints(runs / "again" / "checkpoints")[-1])
    train(runs, *options)

    assert_same(content(runs / "again"), whole)


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["init.only=[towr]"], "Did you mean"),
        (["init.freeze=[towr]"], "Did you mean 'tower'"),
        (["init.only=[]"], "are left over"),
        (["init.adapt={tower: mean}"], "matches nothing; arrays whose shape differs: none"),
        (["model.features=16"], "shape"),
    ],
)
def test_a_transfer_that_cannot_be_meant_is_refused(runs: Path, overrides: list[str], part: str) -> None:
    with pytest.raises(NameplateError) as refused:
        train(runs, *MOVED, f"init.path={runs / 'pairs'}", *overrides)
    assert part in str(refused.value)


def test_settings_that_a_transfer_has_no_use_for_are_refused_before_anything_is_opened() -> None:
    with pytest.raises(ConfigError) as refused:
        run_config(
            [
                "init=transfer",
                "init.path=x",
                "init.adapt={a: meen,b: classes}",
                "init.allow_missing=[a]",
                "init.optimizer=true",
            ]
        ).check()
    told = str(refused.value)
    assert "no rule 'meen'; there are repeat, slice, mean, classes. Did you mean 'mean'?" in told
    assert "needs init.source_classes" in told
    assert "init.allow_missing: not used by a transfer" in told
    assert "init.optimizer: a transfer does not load slots" in told
