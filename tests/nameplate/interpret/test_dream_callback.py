"""Dreams while a run trains: pictures of the layers that the configuration names, and the same weights as without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nameplate.errors import NameplateError
from nameplate.interpret.image_files import read_image, read_recipe
from nameplate.section import ConfigError
from tests.trainer.running import assert_same, content, train
from trainer.config import run_config

DREAM = ["log.dream.layers=['stage*_relu2','class_logit(3)']", "log.dream.every_steps=3", "log.dream.steps=4"]
SMALL = ["model.width=4", "fit.steps=7", "log.tensorboard=true"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, strategy: Any) -> Path:
    found = tmp_path_factory.mktemp("runs")
    train(found, "run=dreamy", *SMALL, *DREAM)
    return found


def test_pictures_are_written_every_so_many_steps(runs: Path) -> None:
    pictures = runs / "dreamy" / "dreams"
    layers = {"stage1_block1_relu2", "stage2_block1_relu2", "class_logit_3"}
    assert {each.name for each in pictures.iterdir()} == {*layers, "forming.png"}
    for layer in layers:
        assert sorted(each.name for each in (pictures / layer).iterdir()) == ["step_00000003.png", "step_00000006.png"]
    recipe = read_recipe(pictures / "class_logit_3" / "step_00000006.png")
    assert (recipe["what"], recipe["step"]) == ("class_logit(3)", 6)
    assert read_image(pictures / "forming.png", channels=3).shape[0] > 3 * 128


def test_tensorboard_has_them_by_layer_and_step(runs: Path) -> None:
    events = EventAccumulator(str(runs / "dreamy" / "tensorboard" / "dreams"), size_guidance={"tensors": 0})
    events.Reload()
    steps = {tag: [each.step for each in events.Tensors(tag)] for tag in events.Tags()["tensors"]}
    assert steps == {tag: [3, 6] for tag in ("stage1_block1_relu2", "stage2_block1_relu2", "class_logit(3)")}


def test_training_is_the_same_with_and_without(runs: Path) -> None:
    train(runs, "run=plain", *SMALL)
    assert_same(content(runs / "dreamy"), content(runs / "plain"))


def test_a_run_that_goes_on_dreams_on(runs: Path) -> None:
    train(runs, "run=long", *SMALL[:1], "fit.steps=4", *DREAM)
    train(runs, "run=long", *SMALL[:1], "fit.steps=7", *DREAM)
    for step in (3, 6):
        name = f"dreams/stage1_block1_relu2/step_0000000{step}.png"
        assert (runs / "long" / name).read_bytes() == (runs / "dreamy" / name).read_bytes()


def test_before_and_after_stand_side_by_side_and_a_resume_keeps_the_before(runs: Path) -> None:
    options = ["run=sides", *SMALL[:1], *DREAM[:1], "log.dream.steps=4", "log.dream.before_after=true"]
    train(runs, *options, "fit.steps=4")
    first = (runs / "sides/dreams/class_logit_3/step_00000000.png").read_bytes()
    train(runs, *options, "fit.steps=7")

    steps = sorted(each.stem for each in (runs / "sides/dreams/class_logit_3").iterdir())
    assert steps == ["step_00000000", "step_00000004", "step_00000007"]
    assert (runs / "sides/dreams/class_logit_3/step_00000000.png").read_bytes() == first
    both = read_image(runs / "sides/dreams/before_after.png", channels=3)
    forming = read_image(runs / "sides/dreams/forming.png", channels=3)
    assert both.shape[0] == forming.shape[0]
    assert both.shape[1] < forming.shape[1]


def test_a_layer_that_there_is_not_is_refused_before_training(runs: Path) -> None:
    with pytest.raises(NameplateError, match="Did you mean 'stage1_block1_relu2'"):
        train(runs, "run=wrong", *SMALL, "log.dream.layers=[stage1_block1_rel2]")
    assert not (runs / "wrong").exists()


@pytest.mark.parametrize("key", ["every_steps", "steps", "size"])
def test_counts_under_one_are_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=f"log.dream.{key}: 0 is too small"):
        run_config([f"log.dream.{key}=0"])
