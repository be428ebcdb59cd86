"""`--help` explains every key and its choices, `--list` has a line for every option; a mistake is answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from nameplate.section import ConfigError
from trainer.config import help_text, is_help, options, run_config
from trainer.config.run_config import dotted


@pytest.fixture(autouse=True)
def columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_every_key_of_every_option_is_explained_with_its_value_and_no_line_is_wider_than_the_terminal() -> None:
    text = help_text(["--help"])
    for key in dotted(run_config()):
        if not any(other.startswith(f"{key}.") for other in dotted(run_config())) and key != "init":
            (row,) = [line for line in text.splitlines() if line.strip().startswith(f"{key}=")]
            following = text[text.index(row) :].splitlines()
            assert len(row.split()) > 1 or following[1].strip(), f"{key} is not explained"
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("group", options())
def test_every_option_is_listed_with_a_line_about_it(group: str) -> None:
    lines = help_text(["--list", group]).splitlines()
    for option in options()[group]:
        (row,) = [line for line in lines if line.split()[0] == f"{group}={option}"]
        assert len(row.split()) > 1 or lines[lines.index(row) + 1].startswith("  "), f"{option} has no line"
    assert max(map(len, lines)) <= 80


def test_the_groups_are_listed_each_with_a_line() -> None:
    lines = help_text(["--list"]).splitlines()
    assert [line.split()[0] for line in lines] == list(options())
    assert all(len(line.split()) > 1 for line in lines)


def test_a_group_is_explained_with_the_keys_of_the_chosen_option() -> None:
    assert "optimizer.weight_decay=0.004" in help_text(["--help", "adamw"])
    assert help_text(["--help", "adamw"]) == help_text(["--help", "optimizer=adamw"])
    assert "optimizer.momentum" not in help_text(["optimizer", "-h"])
    assert "data.path=(required)" in help_text(["--help", "data=csv"])
    assert "init.from=best" in help_text(["--help", "init=transfer"])
    assert "val_same_accuracy near 0.98" in " ".join(help_text(["--help", "experiment=digit_pairs"]).split())


def test_one_key_is_explained_with_its_type_and_its_choices() -> None:
    assert help_text(["--help", "data.resident"]).splitlines()[-3:] == [
        "    auto    if it is in host memory and fits",
        "    always",
        "    never",
    ]
    assert "[int or null]" in help_text(["--help", "fit.steps"])
    assert "null: on all" in help_text(["--help", "data.limit"])
    assert "Huber" in help_text(["--help", "objective.loss"])
    assert "init.from=latest" in help_text(["--help", "init.from", "init=transfer", "init.from=latest"])
    assert "fit.early_stopping.patience=5" in help_text(["--help", "fit.early_stopping"])
    assert "fit.epochs=1" in help_text(["--help", "fit.epochs", "-m", "fit.epochs=1,2"])


def test_options_of_ones_own_are_listed_with_their_comment(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "pets.yaml").write_text("# @package _global_\n# Cats and dogs. More.\nseed: 3\n")
    place = f"hydra.searchpath=[file://{tmp_path}]"
    assert "experiment=pets              Cats and dogs." in help_text(["--list", "experiment", place])
    assert "Cats and dogs. More." in help_text(["--help", "experiment=pets", place])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--help", "optimiser"], "--help optimiser: no such key. Did you mean optimizer"),
        (["--help", "fit.precison"], "Did you mean fit.precision"),
        (["--help", "lr"], "Did you mean optimizer.learning_rate?"),
        (["--help", "digit_pairs"], "Did you mean --help data=digit_pairs or --help experiment=digit_pairs?"),
        (["--help", "rsnet"], "--help rsnet: no such group or key. Did you mean --help model=resnet?"),
        (["--help", "model=rsnet"], "model=rsnet: no such option. Did you mean model=resnet?"),
        (["--list", "modl"], "--list modl: no such group. Did you mean 'model'? There are checkpoint, "),
        (["--list", "model=mlp"], "--list model=mlp: a group is needed; --help model=mlp explains this"),
    ],
    ids=" ".join,
)
def test_what_does_not_exist_is_answered(words: list[str], says: str) -> None:
    assert is_help(words)
    with pytest.raises(ConfigError) as error:
        help_text(words)
    assert says in str(error.value)
