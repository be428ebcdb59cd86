"""Options of the user's own, beside conf/: found, listed, explained; what is not there is told before anything runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nameplate.section import ConfigError
from tests.trainer.running import command
from trainer.config import options, run_config
from trainer.models.config import CustomModelConfig

NET = "defaults: [schema_custom, _self_]\n_target_: my_pets.build\narguments: {width: 8}\n"
PETS = "# @package _global_\ndefaults:\n  - override /model: pets_net\nfit: {epochs: 3}\n"


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory of options, which is a package beside others on the path, too."""
    for name, text in {"model/pets_net": NET, "experiment/pets": PETS, "experiment/old/first": PETS}.items():
        path = tmp_path / "my_pets" / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for package in ("my_pets", "my_pets/conf"):
        (tmp_path / package / "__init__.py").touch()
    for name in [each for each in sys.modules if each.partition(".")[0] == "my_pets"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "my_pets" / "conf"


def added(place: object) -> str:
    return f"hydra.searchpath=[{place}]"


@pytest.mark.parametrize("place", ["file://{}", "{}", "pkg://my_pets.conf"])
def test_an_option_of_ones_own_composes_from_a_directory_and_from_a_package(conf: Path, place: str) -> None:
    config = run_config([added(place.format(conf)), "experiment=pets", "trust=[my_pets]"])
    assert isinstance(config.model, CustomModelConfig)
    assert (config.model._target_, config.model.arguments, config.fit.epochs) == ("my_pets.build", {"width": 8}, 3)


def test_a_directory_may_have_any_name(conf: Path) -> None:
    moved = conf.rename(conf.with_name("zü rich"))
    assert run_config([added(f"file://{moved}"), "experiment=pets"]).fit.epochs == 3


def test_options_of_ones_own_are_listed_beside_the_others(conf: Path) -> None:
    found = options([added(f"file://{conf}")])
    assert {"pets_net", "convnet"} <= set(found["model"])
    assert {"pets", "old/first", "digit_pairs"} <= set(found["experiment"])
    assert options(["--config-dir", str(conf)]) == options([f"--config-dir={conf}"]) == found
    done = command(added(f"file://{conf}"), "--help")
    words = " ".join(done.stdout.split())
    assert "digit_pairs, digits_augmented, digits_dreams, finetune, old/first, pets" in words, done.stderr


MISTAKES = [
    (["hydra.searchpath=[file://{conf}]", "experiment=pet"], "experiment=pet: no such option. Did you mean exper"),
    (["hydra.searchpath=[file://{conf}]", "experiment=pets", "fit.epoch=3"], "fit.epoch: no such key"),
    (["hydra.searchpath=[file://{conf}s]"], "no directory '{conf}s'. Did you mean 'conf'?"),
    (["hydra.searchpath=[pkg://my_pets.cnf]"], "no package 'my_pets.cnf'"),
    (["hydra.searchpath=[pkg://my_pets.conf.model]"], "'my_pets.conf.model' has no __init__.py"),
    (["hydra.searchpath=[s3://conf]"], "s3://conf: neither file:// nor pkg://"),
    (["hydra.searchpath=file://{conf}"], "is not a list; write hydra.searchpath=[file://{conf}]"),
    (["hydra.serchpath=[file://{conf}]"], "Did you mean hydra.searchpath?"),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "says"), MISTAKES, ids=lambda each: " ".join(each)[:50])
def test_what_is_not_there_is_answered(conf: Path, overrides: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        run_config([each.format(conf=conf) for each in overrides])
    assert len(error.value.problems) == 1
    assert says.format(conf=conf) in error.value.problems[0]


def test_a_name_that_is_there_already_is_refused_and_not_passed_over(conf: Path) -> None:
    """Hydra takes the first file that it finds, and says nothing of the second."""
    (conf / "model" / "mlp.yaml").write_text(NET)
    (conf / "train.yaml").write_text("seed: 7\n")
    with pytest.raises(ConfigError, match=r"has train, model=mlp, and so has Nameplate's own conf/, which comes first"):
        run_config([added(f"file://{conf}")])


FILES = [
    (
        "model/bare",
        "_target_: my_pets.build\n",
        r"model: .* defaults: \[schema_mlp or .*schema_custom or schema_file, _self_\]",
    ),
    ("model/bare", NET.partition("\n")[2], r"model/bare.yaml: model.arguments: no such key. The file .*schema_custom"),
    (
        "experiment/x",
        "# @package _global_\nfit: {epocs: 3}",
        "experiment/x.yaml: fit.epocs: no such key. Did you mean 'epochs'",
    ),
    ("experiment/x", "# @package _global_\nfit: {early_stopping: {patienc: 3}}", "Did you mean 'patience'"),
    (
        "experiment/x",
        "# @package _global_\nfit: {epochs: abc}",
        "experiment/x.yaml: fit.epochs: 'abc' is not a whole number",
    ),
    ("experiment/x", "fit: {epochs: 3}", "its first line must be  # @package _global_"),
    ("experiment/x", "# @package _global_\nfit: {epochs: [", "x.yaml, line 2: not YAML"),
    ("experiment/x", PETS.replace("pets_net", "pets_nte"), "model=pets_nte: .* Did you mean 'pets_net'"),
]


@pytest.mark.parametrize(
    ("file", "text", "says"), FILES, ids=[f"{file}-{index}" for index, (file, *_) in enumerate(FILES)]
)
def test_a_file_with_a_mistake_is_named_with_what_was_meant(conf: Path, file: str, text: str, says: str) -> None:
    (conf / f"{file}.yaml").write_text(text)
    with pytest.raises(ConfigError, match=says):
        run_config([added(f"file://{conf}"), file.replace("/", "=")])


@pytest.mark.parametrize("file", ["experiment/pets", "model/pets_net"])
def test_no_file_can_give_itself_trust(conf: Path, file: str) -> None:
    path = conf / f"{file}.yaml"
    path.write_text("# @package _global_\ntrust: [my_pets]\n")
    asked = [added(f"file://{conf}"), file.replace("/", "=")]
    with pytest.raises(ConfigError, match=r"Only the command line may: trust=\[my_pets\]"):
        run_config(asked)
    done = command(*asked, "dry_run=true")
    assert done.returncode == 2
    assert "trust: a file of options sets it" in done.stderr


@pytest.mark.parametrize(
    "more", ["trust=[my_pets]", "+trust=[my_pets]", "hydra.searchpath=[/tmp]", "--config-dir=/tmp"]
)
def test_no_file_can_give_trust_to_the_runs_before_it(conf: Path, more: str) -> None:
    (conf / "experiment" / "pets.yaml").write_text(f'# @package _global_\nbefore: {{first: [seed=1, "{more}"]}}\n')
    with pytest.raises(ConfigError) as error:
        run_config([added(f"file://{conf}"), "experiment=pets"])
    assert error.value.problems == [f"before.first: {more} is only for the command line, which passes it on"]


@pytest.mark.parametrize(
    "inside",
    [
        "hydra: {callbacks: {mine: {_target_: my_pets.called}}}",
        "trust: [my_pets]\nhydra: {callbacks: {mine: {_target_: my_pets.called}}}",
        "hydra: {job_logging: {handlers: {mine: {(): my_pets.called}}}}",
    ],
    ids=["callback", "callback with trust of its own", "logging"],
)
def test_no_file_has_hydra_import_what_is_not_trusted(conf: Path, inside: str) -> None:
    """Hydra makes its callbacks and sets up logging before the run has a say."""
    (conf / "experiment" / "pets.yaml").write_text(f"# @package _global_\n{inside}\n")
    asked = [added(f"file://{conf}"), "experiment=pets"]
    with pytest.raises(ConfigError, match=r"hydra\..*mine\..*: 'my_pets.called' may not be imported by Hydra"):
        run_config(asked)
    assert run_config([*asked, "trust=[my_pets]"]).fit.epochs == 12


def test_no_choice_of_a_sweep_has_hydra_import_what_is_not_trusted(conf: Path) -> None:
    call = "# @package _global_\nhydra: {callbacks: {mine: {_target_: my_pets.called}}}\n"
    (conf / "experiment" / "pets.yaml").write_text(call)
    done = command("-m", added(f"file://{conf}"), "experiment=digit_pairs,pets")
    assert (done.returncode, "'my_pets.called' may not be imported by Hydra" in done.stderr) == (2, True)
