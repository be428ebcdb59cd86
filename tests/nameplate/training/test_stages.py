"""Layers that train from an epoch on: exact on resume, a checkpoint for each stage, and what cannot be meant."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nameplate import checkpoint as store
from nameplate.errors import NameplateError
from nameplate.section import ConfigError
from nameplate.training.config import TransferInitConfig
from nameplate.training.config_diff import ConfigDiffError
from nameplate.training.stages import stages_of
from tests.trainer.running import assert_same, content, train
from trainer.config import run_config

pytestmark = pytest.mark.usefixtures("strategy")

TOWER = ["model.width=4", "model.features=8"]
STAGED = [
    "experiment=transfer_digits",
    "before=null",
    "~init.unfreeze.30",
    *TOWER,
    "strategy=single",
    "data.limit=16",
    "fit.epochs=4",
    "fit.global_batch=8",
    "init.freeze=[tower]",
    "init.unfreeze={1: [tower/conv2], 3: [tower]}",
    "optimizer.rates={tower: 1e-4, tower/conv2: 1e-2}",
    "checkpoint.keep_last=1",
    "checkpoint.keep_best=0",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return runs with one called `pairs`, and one called `staged` that thawed its tower in three stages."""
    folder = tmp_path_factory.mktemp("runs")
    train(folder, "experiment=digit_pairs", "data.pairs=1", *TOWER, "fit.steps=1", "strategy=single", "run=pairs")
    train(folder, *STAGED, f"init.path={folder / 'pairs'}", "run=staged")
    return folder


def moved(run: Path, first: int, last: int) -> set[str]:
    """Return the layers whose weights two steps have differently."""
    one, other = content(run, first), content(run, last)
    return {
        name.removeprefix("weights:").rpartition("/")[0]
        for name in one
        if name.startswith("weights:") and one[name].tobytes() != other[name].tobytes()
    }


def test_what_is_frozen_stays_bit_for_bit_until_its_epoch_and_then_trains(runs: Path) -> None:
    taken, first = content(runs / "pairs"), content(runs / "staged", 2)
    tower = [name for name in taken if name.startswith("weights:tower/")]

    assert_same({name: taken[name] for name in tower}, {name: first[name] for name in tower})
    assert moved(runs / "staged", 2, 6) == {"tower/conv2", "label", "label_hidden"}
    assert {"tower/conv1", "tower/bn1", "tower/conv2", "tower/features"} < moved(runs / "staged", 6, 8)


def test_slots_of_what_thaws_later_are_there_from_the_beginning_and_zero_until_then(runs: Path) -> None:
    first, last = content(runs / "staged", 2), content(runs / "staged", 8)
    slots = [name for name in last if name.startswith("optimizer:tower/")]

    assert {"optimizer:tower/conv1/kernel@momentum", "optimizer:tower/conv2/kernel@velocity"} < set(slots)
    assert not any(first[name].any() for name in slots)
    assert all(last[name].any() for name in slots)


def test_each_stage_leaves_a_checkpoint_that_stays_and_is_named_in_its_manifest(runs: Path) -> None:
    told = {}
    for path in store.checkpoints(runs / "staged" / "checkpoints"):
        with store.open(path) as checkpoint:
            told[path.name] = checkpoint.manifest.about["stage"]

    assert told == {
        "step_00000002": {"name": "stage 1 of 3", "frozen": ["tower"], "thawed": []},
        "step_00000006": {"name": "stage 2 of 3", "frozen": ["tower"], "thawed": ["tower/conv2"]},
        "step_00000008": {"name": "stage 3 of 3", "frozen": ["tower"], "thawed": ["tower/conv2", "tower"]},
    }


def test_a_run_that_goes_on_thaws_the_same_layers_at_the_same_steps(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "staged", tmp_path / "staged")
    for path in store.checkpoints(tmp_path / "staged" / "checkpoints")[1:]:
        shutil.rmtree(path)
    train(tmp_path, *STAGED, f"init.path={runs / 'pairs'}", "run=staged")

    assert_same(content(tmp_path / "staged"), content(runs / "staged"))


def test_other_layers_to_thaw_are_refused_on_resume_unless_they_are_meant(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "staged", tmp_path / "staged")
    changed = [
        *STAGED,
        f"init.path={runs / 'pairs'}",
        "run=staged",
        "init.freeze=[tower/conv*,tower/bn*]",
        "fit.epochs=5",
    ]
    with pytest.raises(ConfigDiffError, match=r"init.freeze: \[\"tower\"\] -> "):
        train(tmp_path, *changed)
    report = train(tmp_path, *changed, "resume_changed=[init.freeze]")

    assert report.steps == 10


def test_a_run_from_scratch_does_not_silently_train_what_was_frozen(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "staged", tmp_path / "staged")
    options = [each for each in STAGED[3:] if not each.startswith("init.")]
    with pytest.raises(ConfigDiffError, match=r"init\.freeze"):
        train(tmp_path, "model=one_tower", *options, "run=staged")


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["init.unfreeze={1: [towr]}"], "'towr' Did you mean 'tower'"),
        (["init.unfreeze={1: [label]}"], "init.unfreeze.1: label trains already; leave it out"),
        (["init.unfreeze={1: [tower], 3: [tower/conv1]}"], "init.unfreeze.3: tower/conv1 trains already"),
        (["init.freeze=['*']"], "init.freeze: nothing trains from epoch 1 on"),
        (["optimizer.rates={towr: 1e-4}"], "'towr' Did you mean 'tower'"),
        (["init.unfreeze={}", "optimizer.rates={tower: 1e-4}"], "'tower': what it matches does not train"),
    ],
)
def test_stages_and_rates_that_cannot_be_meant_are_refused(runs: Path, overrides: list[str], part: str) -> None:
    base = [each for each in STAGED if not each.startswith(tuple(each.partition("=")[0] for each in overrides))]
    rest = [each for each in base if not each.startswith("optimizer")]
    with pytest.raises(NameplateError) as refused:
        train(runs, *rest, f"init.path={runs / 'pairs'}", *overrides)
    assert part in str(refused.value).replace(". Did", " Did")


def test_epochs_and_rates_that_no_run_has_are_refused_before_anything_is_opened() -> None:
    with pytest.raises(ConfigError) as refused:
        run_config(["init=transfer", "init.path=x", "init.unfreeze={0: [tower]}", "optimizer.rates={tower: 0}"])
    told = str(refused.value)
    assert "init.unfreeze.0: 0 is not a number of finished epochs; e.g. init.unfreeze={5: [NAME]}" in told
    assert "init.unfreeze: nothing is frozen; set init.freeze=[NAME]" in told
    assert "optimizer.rates.tower: 0.0 is too small; greater than 0; init.freeze=[tower] keeps" in told


def test_a_stage_beyond_the_end_is_told() -> None:
    said: list[str] = []
    config = TransferInitConfig(path="x", freeze=["tower"], unfreeze={1: ["tower/conv2"], 3: ["tower"]})
    stages = stages_of(config, epochs=2, say=said.append)
    assert said == ["init.unfreeze.3: the run ends after 2 epochs, and tower stays frozen"]
    assert [stages.at(epoch) for epoch in range(4)] == [0, 1, 1, 2]
