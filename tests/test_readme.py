"""Every command and every piece of Python in the README works, and its map is the house."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pyarrow.parquet
import pytest

from nameplate.engine.cluster import cluster
from scripts.readme_map import ROOT, written
from tests.jobs import run_module
from tests.trainer.test_finetuning import make_images
from trainer.config import run_config
from trainer.config.hydra_queries import first_of_sweep

README = (ROOT / "README.md").read_text("utf-8")
LINES = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines() if line]
COMMANDS = [line for line in LINES if not line.startswith("make ")]
QUICK = ["fit.steps=2", "log.tensorboard=false", "log.layer_table=false"]
MY_NETS = """
import keras, numpy as np

def build(input_shape, classes, width=4):
    image = keras.Input(input_shape, name="image")
    x = keras.layers.Flatten(name="flat")(image)
    x = keras.layers.Dense(width, activation="relu", name="body")(x)
    return keras.Model(image, keras.layers.Dense(classes, name="label")(x), name="mine")

def data():
    numbers = np.random.default_rng(0)
    return numbers.normal(size=(200, 8, 8, 1)).astype("float32"), numbers.integers(0, 10, 200)
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory as a user may have it: a module and an array file of their own."""
    place = tmp_path_factory.mktemp("desk")
    (place / "my_nets.py").write_text(MY_NETS)
    numbers = np.random.default_rng(0)
    images, labels = numbers.normal(size=(200, 8, 8, 1)).astype("float32"), numbers.integers(0, 10, 200)
    np.savez(place / "digits.npz", image=images, label=labels)
    make_images(place / "flowers")
    table = {
        "species": ["rose", "iris"] * 40,
        "colour": ["red", "blue", "white", "red"] * 20,
        "height": [0.1, 0.2] * 40,
    }
    pyarrow.parquet.write_table(pyarrow.table(table), place / "flowers.parquet")
    return place


def test_the_readme_has_commands() -> None:
    assert len(COMMANDS) >= 12


@pytest.mark.parametrize(
    "command",
    [
        line
        for line in COMMANDS
        if line.startswith("python -m trainer ") and not {"--help", "--list"} & set(line.split())
    ],
)
def test_every_run_of_the_readme_composes_as_it_is_written(
    command: str, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desk)
    words = [word for word in shlex.split(command)[3:] if not word.startswith("-") and word != "job"]
    assert run_config([first_of_sweep(word) for word in words])


def test_a_run_and_what_is_done_with_it_work_in_the_order_of_the_readme(desk: Path) -> None:
    """With small models on one replica, in processes that start at once; the long suite runs all as it is written."""
    failed = []
    for command in filter(_is_quick, COMMANDS):
        words = _given(command.replace("model=resnet model.width=32", "model=convnet"), "strategy=single")
        if words[0] == "python":
            done = run_module(words[2:], cwd=desk, environment=_environment(desk, words))
        else:
            done = _run(words, desk)
        if done.returncode != 0 or not done.stdout:
            failed.append(f"{command}\n{done.stdout}{done.stderr}")
    assert not failed, "\n".join(failed)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_command_of_the_readme_works_after_those_above_it(desk: Path) -> None:
    backbone = keras.applications.MobileNetV2((160, 160, 3), include_top=False, weights=None)
    backbone.save_weights(desk / "mobilenet_v2.weights.h5")
    failed = []
    for command in COMMANDS:
        done = _run(_given(command), desk)
        if done.returncode != 0 or not done.stdout:
            failed.append(f"{command}\n{done.stdout}{done.stderr}")
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("command", [line for line in LINES if line.startswith("make ")])
def test_every_make_target_of_the_readme_exists(command: str) -> None:
    done = subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_python_of_the_readme_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="logits")], name="mine")
    numbers = np.random.default_rng(0)
    x, y = numbers.normal(size=(100, 4)).astype("float32"), numbers.integers(0, 2, 100)
    held = {"model": model, "x": x, "y": y, "x_val": x, "y_val": y}
    scripted, of_table, looped, sweeping, naming, fitting = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(naming, held)
    assert held["model"].get_layer("head")
    held["model"].compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    exec(fitting, held)
    assert len(held["history"].history["val_loss"]) == 5
    exec(scripted, held)
    assert len(held["history"].history["val_accuracy"]) == 5
    assert held["best"].get_layer("head")
    exec(of_table, held)
    assert held["training"].size == held["validation"].size == 2
    exec(looped, held)
    exec(sweeping, held)
    assert len(held["sweep"].jobs) == 4


def test_the_workers_of_the_readme_are_two_machines() -> None:
    (described,) = re.findall(r"TF_CONFIG='(.*)'", README)
    found = cluster({"TF_CONFIG": described})
    assert found is not None
    assert (found.addresses, found.is_chief) == (("a:2222", "b:2222"), True)


def test_the_map_is_the_house() -> None:
    assert written(README) == README, "run `make fmt`"


def _is_quick(command: str) -> bool:
    """Say whether `make test` runs a command: not those that train for long, or whose start has a test of its own."""
    others = ("experiment=", "model=two_tower", "model=vit", "run=next", "runs/flowers", "trainer.doctor")
    return not any(word in command for word in (*others, "--help", "--list", "scripts.launch"))


def _given(command: str, *more: str) -> list[str]:
    """Return the words of a command, which trains for two steps only if it trains."""
    words = shlex.split(command)
    if words[:3] == ["python", "-m", "trainer"] and not {"--help", "--list", "--cfg"} & set(words):
        words += [*QUICK, *more]
    return words


def _environment(desk: Path, words: list[str]) -> dict[str, str]:
    """Return the environment of a command; `scripts` is in the checkout alone."""
    places = f"{desk}:{ROOT}" if "-m" in words and words[2].startswith("scripts.") else str(desk)
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": places}


def _run(words: list[str], desk: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    return subprocess.run(words, cwd=desk, env=_environment(desk, words), capture_output=True, text=True, check=False)
