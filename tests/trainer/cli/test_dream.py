"""`python -m trainer.dream` and the verb: of a file, of a run, in any order of imports."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

import nameplate
from nameplate import checkpoint as store
from nameplate.errors import NameplateError
from nameplate.interpret.image_files import read_image, read_recipe
from nameplate.training.data_record import stored_shapes
from tests.jobs import run_module
from tests.nameplate.interpret.nets import nested
from tests.trainer.running import train
from trainer.cli.dream import main
from trainer.config import run_config, stored_config, to_yaml
from trainer.job.model import rebuild

QUICK = ["--steps", "4"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("files") / "nested.keras"
    nameplate.save(nested(), path)
    return str(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, strategy: object) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    train(runs, "run=mine", "fit.steps=4", "model=convnet", "model.width=8", "naming=repair")
    return runs / "mine"


def test_help_and_recipes_need_no_tensorflow() -> None:
    program = (
        "import sys, trainer.cli.dream as d; d._parser(); "
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_module_is_a_command(file: str, tmp_path: Path) -> None:
    command = ["trainer.dream", file, "backbone/conv1", *QUICK]
    done = run_module(command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "dream.png" in done.stdout
    again = run_module([*command, "--out", "again.png"], cwd=tmp_path)
    assert again.returncode == 0
    assert (tmp_path / "dream.png").read_bytes() == (tmp_path / "again.png").read_bytes()


SHEETS = {
    "objective": ['0.7 * layer("neck") + 0.3 * channel("backbone/conv1", 2)'],
    "layers": ["--layers", "backbone/*", "ne*"],
    "channels": ["--channels", "neck", "--numbers", "0-2,7"],
    "classes": ["--classes", "--size", "24"],
    "from a pattern": ["neck", "--image", "sky", "--size", "32x40", "--octaves", "1"],
    "several": ["neck", "--count", "3", "--replicas", "2"],
    "look": ["--look", "*conv*", "--image", "hills"],
    "saliency": ["--grad-cam", "2", "--at", "neck", "--image", "rings"],
}


@pytest.mark.parametrize("kind", SHEETS)
def test_every_kind_of_picture_is_made(file: str, tmp_path: Path, strategy: object, kind: str) -> None:
    out = tmp_path / "picture.png"
    assert main([file, *SHEETS[kind], *QUICK, "--out", str(out)]) == 0
    recipe = read_recipe(out)
    assert recipe["model"] == file
    assert recipe["settings"]["steps"] == 4
    assert read_image(out, channels=3).std() > 5


def test_a_picture_starts_from_a_file_and_a_reference_is_one(file: str, tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)).save(tmp_path / "cat.jpg")
    objective = f'neck - 0.1 * style("backbone/conv1", "{tmp_path / "cat.jpg"}")'.replace("neck -", 'layer("neck") -')
    given = [file, objective, "--image", str(tmp_path / "cat.jpg"), "--out", str(tmp_path / "cat.png"), *QUICK]
    assert main(given) == 0
    assert read_image(tmp_path / "cat.png", channels=3).shape == (7 * 30, 7 * 40, 3)


def test_tensorboard_gets_the_picture(file: str, tmp_path: Path) -> None:
    given = [file, "neck", "--tensorboard", str(tmp_path / "board"), "--out", str(tmp_path / "a.png"), *QUICK]
    assert main(given) == 0
    assert list((tmp_path / "board").glob("events.out.tfevents.*"))


def test_a_run_dreams_with_the_weights_of_its_checkpoint(run: Path, tmp_path: Path) -> None:
    found = rebuild(str(run))
    assert found.step == 4
    assert found.data is not None
    out = tmp_path / "run.png"
    assert main([str(run), "class_logit(3)", "--image", "example:5", "--out", str(out), *QUICK]) == 0
    assert read_recipe(out)["step"] == 4
    assert (
        main([str(run / "checkpoints" / "latest"), "--look", "stage1*", "--image", "example:0", "--out", str(out)]) == 0
    )


def test_a_class_has_a_name(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = {
        "number": ["class_logit(3)"],
        "name": ['class_logit("3")'],
        "option": ["--class", "3"],
    }
    for name, words in runs.items():
        assert main([str(run), *words, "--size", "8", "--out", str(tmp_path / f"{name}.png"), *QUICK]) == 0
    assert read_recipe(tmp_path / "name.png")["what"] == 'class_logit("3")'
    by_number, by_name = (read_image(tmp_path / f"{name}.png", channels=3) for name in ("number", "name"))
    np.testing.assert_array_equal(by_number, by_name)
    assert main([str(run), "--class", "3", "7", "--size", "8", "--out", str(tmp_path / "two.png"), *QUICK]) == 0
    assert read_recipe(tmp_path / "two.png")["what"] == 'class_logit(["3", "7"])'
    at = ["--at", "stage1_block1_relu2", "--image", "rings", "--size", "8", "--out", str(tmp_path / "seen.png")]
    assert main([str(run), "--grad-cam", "3", *at]) == 0
    capsys.readouterr()
    assert main([str(run), "--class", "three", "--out", str(tmp_path / "no.png")]) == 2
    assert "no class is called 'three'. There are 0, 1, 2" in " ".join(capsys.readouterr().err.split())


def test_names_of_classes_are_given_in_python(strategy: object) -> None:
    with strategy.scope():  # type: ignore[attr-defined]
        model = nested()
        quick: dict[str, Any] = {"steps": 2, "size": 16, "octaves": 1}
        names = {"label": [f"kind {number}" for number in range(20)]}
        one = nameplate.dream(model, "class_logit(2)", **quick)
        other = nameplate.dream(model, 'class_logit("kind 2")', classes=names, **quick)
        np.testing.assert_array_equal(one, other)
        with pytest.raises(NameplateError, match=r"no class is called 'kind2'. Did you mean 'kind 2'"):
            nameplate.dream(model, 'class_logit("kind2")', classes=names, **quick)
        with pytest.raises(NameplateError, match="'kind 2': no names of classes are known here; give the number"):
            nameplate.dream(model, 'class_logit("kind 2")', **quick)


def test_e5_a_run_dreams_without_its_data(tmp_path: Path, strategy: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its data was at a relative path, and is not there where it dreams; nor is that of an earlier version's run."""
    del strategy
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    numbers = np.random.default_rng(0)
    images = numbers.uniform(size=(40, 8, 8, 1)).astype("float32")
    np.savez("data.npz", image=images, label=numbers.integers(0, 3, 40))
    data = ["data=arrays", "data.path=data.npz", "data.inputs=[image]", "data.targets=[label]"]
    small = {"graph": ["model=convnet", "model.width=4"], "class": ["model=subclassed", "model.layers=1"]}
    for name, model in small.items():
        train(tmp_path, *data, *model, "strategy=single", f"run={name}", "fit.steps=2")

    def outputs(name: str) -> np.ndarray:
        return np.asarray(keras.tree.flatten(rebuild(str(tmp_path / name)).model(images[:2]))[0])

    seen = {name: outputs(name) for name in ("graph", "class")}
    monkeypatch.chdir(tmp_path)
    for name, before in seen.items():
        assert np.array_equal(outputs(name), before)
        assert main([str(tmp_path / name), "class_logit(1)", *QUICK]) == 0
    assert main([str(tmp_path / "graph"), "label", "--image", "example:0", *QUICK]) == 2
    with store.open(store.checkpoints(tmp_path / "graph" / "checkpoints")[-1]) as checkpoint:
        told = stored_shapes(checkpoint)
        object.__setattr__(checkpoint.manifest, "about", {})
        assert stored_shapes(checkpoint) == told
        odds: list[object] = [[], {"inputs": 3, "outputs": {}}, {"inputs": {"a/b": [[1], "x"]}, "outputs": {"y": 1}}]
        for odd in odds:
            object.__setattr__(checkpoint.manifest, "about", {"shapes": odd})
            assert stored_shapes(checkpoint) == told


def test_e5_the_first_dream_gets_better_at_its_objective_and_is_not_grey(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the README has it, of a run that has hardly begun."""
    assert main([str(run), "--classes", "--out", str(tmp_path / "first.png")]) == 0
    said = re.search(r": (-?[\d.]+) at first, (-?[\d.]+) at last\n", capsys.readouterr().out)
    assert said is not None
    assert float(said[2]) > float(said[1]) + 0.5  # logits, of a run of four steps: 0.0 and 0.9
    pixels = read_image(tmp_path / "first.png", channels=1)[8:168, 8:168]  # class 0, enlarged
    assert pixels.std() > 25


REFUSED = {
    "nothing asked": ([], "name a layer, e.g. backbone"),
    "an unknown layer": (["nek"], "Did you mean 'neck'"),
    "an unknown image": (["neck", "--image", "skye"], "no file at skye"),
    "no image": (["--look", "neck"], "an image is needed"),
    "no layer": (["--grad-cam", "1", "--image", "sky"], "--at LAYER"),
    "no data": (["neck", "--image", "example:1"], "has no data"),
    "another ending": (["neck", "--out", "dream.jpg"], "written as .png"),
    "a size": (["neck", "--octaves", "0"], "octaves: 0 is too small"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_dreamt_is_refused_in_words(
    file: str, kind: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given, message = REFUSED[kind]
    assert main([file, *given, *QUICK]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_picture_tells_its_recipe(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "neck.png")
    assert main([file, "neck", "--seed", "7", "--out", out, *QUICK]) == 0
    capsys.readouterr()
    assert main([out]) == 0
    told = capsys.readouterr().out
    assert 'layer("neck")' in told
    assert "'seed': 7" in told


@pytest.mark.parametrize(
    "overrides",
    [[], ["model=resnet", "data=synthetic", "optimizer=sgd"], ["objective.class_weights={1: 2.0}", "naming=repair"]],
)
def test_a_stored_configuration_reads_back(overrides: list[str]) -> None:
    config = run_config(overrides)
    assert stored_config(to_yaml(config)) == config


def test_a_run_of_a_model_that_is_not_ours_needs_trust(run: Path, tmp_path: Path) -> None:
    config = to_yaml(run_config(["model=custom", "model._target_=my_nets.build", "trust=[my_nets]"]))
    stored = stored_config(config)
    assert stored.trust == ["my_nets"]  # what it was trained with; what may be built is said on the command line
    from nameplate.data.registry import open_dataset
    from nameplate.data.targets import resolver
    from nameplate.errors import NameplateError
    from trainer.job.model import build_model

    dataset = open_dataset(stored.data, seed=0)
    with pytest.raises(NameplateError, match="not among what may be run"):
        build_model(stored.model, dataset, precision=stored.fit.precision, seed=0, resolve=resolver(()))
