"""Every command and every piece of Python in the README works, and its map is the house."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nameplate.engine.cluster import cluster
from scripts.readme_map import ROOT, written

README = (ROOT / "README.md").read_text("utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines() if line]
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
    return place


def test_the_readme_has_commands() -> None:
    assert len(COMMANDS) >= 12


@pytest.mark.timeout(1800)
def test_every_command_of_the_readme_works_after_those_above_it(desk: Path) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(desk)}
    failed = []
    for command in [each for each in COMMANDS if not each.startswith("make ")]:
        words = shlex.split(command)
        if words[:3] == ["python", "-m", "trainer"] and not {"--help", "--cfg"} & set(words):
            words += QUICK
        scripts = words[:2] == ["python", "-m"] and words[2].startswith("scripts.")  # they are in the checkout alone
        given = environment | ({"PYTHONPATH": f"{desk}:{ROOT}"} if scripts else {})
        done = subprocess.run(words, cwd=desk, env=given, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not done.stdout:
            failed.append(f"{command}\n{done.stdout}{done.stderr}")
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("command", [each for each in COMMANDS if each.startswith("make ")])
def test_every_make_target_of_the_readme_exists(command: str) -> None:
    done = subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_python_of_the_readme_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    monkeypatch.chdir(tmp_path)
    model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="logits")], name="mine")
    numbers = np.random.default_rng(0)
    x, y = numbers.normal(size=(100, 4)).astype("float32"), numbers.integers(0, 2, 100)
    held = {"model": model, "x": x, "y": y, "x_val": x, "y_val": y}
    scripted, looped, sweeping, naming, fitting = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(naming, held)
    assert held["model"].get_layer("head")
    held["model"].compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    exec(fitting, held)
    assert len(held["history"].history["val_loss"]) == 5
    exec(scripted, held)
    assert len(held["history"].history["val_accuracy"]) == 5
    assert held["best"].get_layer("head")
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
