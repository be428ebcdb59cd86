"""The wheel works outside the checkout, and so does a project of its own that depends on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from scripts.readme_map import ROOT
from tests.trainer.running import QUICK

PARTS = ("pyproject.toml", "README.md", "conf", "models", "nameplate", "trainer")
EXAMPLE = ROOT / "scripts" / "example_project"


def built(sources: Path, wheels: Path) -> Path:
    """Build the wheel of a source tree, with what is installed: nothing is downloaded."""
    building = ["wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(wheels), "."]
    subprocess.run([sys.executable, "-m", "pip", *building], cwd=sources, check=True, env=os.environ)
    (found,) = wheels.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the project's wheel, built of a copy: a build leaves things behind."""
    sources = tmp_path_factory.mktemp("sources")
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, sources / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, sources / part)
    return built(sources, tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the wheel and that of the example project are installed, without what they depend on."""
    sources, target = tmp_path_factory.mktemp("example") / "project", tmp_path_factory.mktemp("installed")
    shutil.copytree(EXAMPLE, sources, ignore=shutil.ignore_patterns("__pycache__"))
    example = built(sources, tmp_path_factory.mktemp("example_wheels"))
    command = ["install", "--quiet", "--no-deps", "--no-index", "--target", str(target), str(wheel), str(example)]
    subprocess.run([sys.executable, "-m", "pip", *command], check=True)
    return target


def outside(installed: Path, place: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a console script, or this Python, with what is installed there and nothing of the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    program = sys.executable if command[0] == "python" else str(installed / "bin" / command[0])
    return subprocess.run(
        [program, *command[1:]], cwd=place, env=environment, capture_output=True, text=True, check=False
    )


def test_the_wheel_has_the_packages_conf_and_digits_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in names} == {"nameplate", "trainer"}
    # models/ and conf/ are links in the package, so that they cannot be taken for a user's own.
    places = {"nameplate": "nameplate", "trainer": "trainer", "models": "trainer/models", "conf": "trainer/conf"}
    kept = [(place, ROOT / part, path) for part, place in places.items() for path in (ROOT / part).rglob("*")]
    wanted = {
        f"{place}/{path.relative_to(root)}" for place, root, path in kept if path.suffix in (".py", ".yaml", ".npz")
    }
    assert wanted <= names
    assert not {name for name in names if "test" in name.split("/")[0] or "example" in name}
    assert {"nameplate/data/DIGITS.md", "nameplate/py.typed"} <= names  # the digits' licence; types for mypy


def test_the_console_scripts_run_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    where = outside(installed, tmp_path, "python", "-c", "import trainer, nameplate; print(trainer.__file__)")
    assert where.stdout.startswith(str(installed)), where.stderr
    helped = outside(installed, tmp_path, "nameplate", "--help")
    assert "  experiment  digit_pairs, " in helped.stdout, helped.stderr
    refused = outside(installed, tmp_path, "nameplate", "model=convent")
    assert (refused.returncode, "Did you mean model=convnet?" in refused.stderr) == (2, True)


def test_a_project_of_its_own_trains_its_model_on_its_data_and_goes_on(installed: Path, tmp_path: Path) -> None:
    done = outside(installed, tmp_path, "waves", "experiment=waves", "run=first", "fit.epochs=1", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "hydra.searchpath=[pkg://waves.conf]" in done.stdout
    assert "experiment=waves fit.epochs=1" in done.stdout
    listed = outside(installed, tmp_path, "ckpt", "show", "runs/first")
    assert "fine/kernel" in listed.stdout, listed.stderr


OWN = """import keras


def build(inputs, outputs):
    image = keras.Input(inputs["image"], name="image")
    flat = keras.layers.Flatten(name="flat")(image)
    return keras.Model(image, keras.layers.Dense(outputs["label"], name="own_head")(flat), name="own")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project whose packages have the names that ours could collide with."""
    for package in ("models", "scripts", "conf", "config", "data"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(f"OURS = {package!r}\n")
    (tmp_path / "models" / "resnet.py").write_text(OWN)
    (tmp_path / "conf" / "train.yaml").write_text("not: ours\n")
    return tmp_path


def test_a_project_keeps_its_own_models_conf_and_scripts(installed: Path, project: Path) -> None:
    program = (
        "import models, scripts, conf, nameplate, keras; assert models.OURS == 'models' and conf.OURS == 'conf'; "
        "model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name='a')], name='m'); "
        "print(list(nameplate.layers(nameplate.rename(model, {'a': 'head'}))), models.__file__, scripts.__file__)"
    )
    said = outside(installed, project, "python", "-c", program)
    assert said.stdout.split() == ["['head']", *(f"{project}/{name}/__init__.py" for name in ("models", "scripts"))]


def test_trusted_models_are_the_projects_and_ours_are_ours(installed: Path, project: Path) -> None:
    own = ["model=custom", "model._target_=models.resnet.build", "trust=[models]", "naming=strict"]
    done = outside(installed, project, "python", "-m", "trainer", "run=own", "fit.steps=2", *own, *QUICK)
    assert done.returncode == 0, done.stderr
    assert "own_head/kernel" in outside(installed, project, "ckpt", "show", "runs/own").stdout
    ours = ["model=mlp", "trust=[models]"]
    done = outside(installed, project, "nameplate", "run=ours", "fit.steps=2", *ours, *QUICK)
    assert done.returncode == 0, done.stderr
    assert "hidden1/kernel" in outside(installed, project, "ckpt", "show", "runs/ours").stdout


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["waves", "experiment=wave"], "Did you mean experiment=waves?"),
        (["nameplate", "experiment=waves"], "experiment=waves: no such option."),
        (["nameplate", "hydra.searchpath=[pkg://wave.conf]", "experiment=waves"], "no package 'wave.conf'"),
    ],
    ids=["mistyped", "not searched", "not installed"],
)
def test_what_the_project_mistypes_is_answered(installed: Path, tmp_path: Path, command: list[str], says: str) -> None:
    done = outside(installed, tmp_path, *command)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
