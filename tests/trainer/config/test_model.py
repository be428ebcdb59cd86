"""The configuration of every architecture: its defaults, its problems, its option in conf/model."""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from nameplate.section import ConfigError
from trainer.config import run_config
from trainer.models import ARCHITECTURES
from trainer.models.checks import Norm
from trainer.models.config import (
    MODEL_SCHEMAS,
    ApplicationsConfig,
    ConvnetConfig,
    CustomModelConfig,
    MlpConfig,
    ModelConfig,
    ResnetConfig,
    SubclassedConfig,
    TwoTowerConfig,
    VitConfig,
)
from trainer.models.edits import LAYER, VERBS

_ONE_VERB = "an edit has one key, its verb: {freeze: backbone/*}"
CONF = Path(__file__).parents[3] / "conf" / "model"


def test_every_architecture_has_a_schema_and_an_option() -> None:
    assert set(MODEL_SCHEMAS) == {*ARCHITECTURES, "custom", "file"} == {path.stem for path in CONF.glob("*.yaml")}


@pytest.mark.parametrize("option", ARCHITECTURES)
def test_the_schema_has_the_parameters_and_defaults_of_the_build_function(option: str) -> None:
    config = MODEL_SCHEMAS[option]()
    assert config._target_ == ARCHITECTURES[option]
    parameters = signature(import_module(f"trainer.models.{option}").build).parameters
    defaults = {name: each.default for name, each in parameters.items() if name not in ("inputs", "outputs")}
    given = {name: tuple(each) if isinstance(each, list) else each for name, each in _given(config).items()}
    assert given == {name: {} if name == "arguments" else default for name, default in defaults.items()}


@pytest.mark.parametrize("option", MODEL_SCHEMAS)
def test_the_defaults_of_a_schema_are_sound_and_survive_omegaconf(option: str) -> None:
    target: Any = {"custom": {"_target_": "pets.build"}, "file": {"path": "pets.keras"}}.get(option, {})
    config = MODEL_SCHEMAS[option](**target)
    assert config.problems() == []
    assert OmegaConf.to_object(OmegaConf.structured(config)) == config


@pytest.mark.parametrize("option", [option for option in MODEL_SCHEMAS if option not in ("custom", "file")])
def test_every_option_composes(option: str) -> None:
    config = run_config([f"model={option}"]).model
    assert type(config) is MODEL_SCHEMAS[option]


@pytest.mark.parametrize("option", MODEL_SCHEMAS)
def test_an_option_begins_with_the_command_that_uses_it(option: str) -> None:
    first = (CONF / f"{option}.yaml").read_text().splitlines()[0]
    assert first.startswith(f"# python -m trainer model={option}")


@pytest.mark.parametrize(
    ("config", "problems"),
    [
        (MlpConfig(hidden=[8, 0]), ["model.hidden: [8, 0] is too small; at least 1"]),
        (MlpConfig(dropout=1.5), ["model.dropout: 1.5 is not in [0, 1)"]),
        (
            ConvnetConfig(width=0, blocks=[], dropout=-0.1),
            [
                "model.width: 0 is too small; at least 1",
                "model.blocks: empty; give at least one number",
                "model.dropout: -0.1 is not in [0, 1)",
            ],
        ),
        (ResnetConfig(depth=20), ["model.depth: 20 is not one of 18, 34, 50"]),
        (VitConfig(heads=3), ["model.heads: 3 do not divide width 64; e.g. 1, 2, 4"]),
        (VitConfig(patch=0), ["model.patch: 0 is too small; at least 1"]),
        (TwoTowerConfig(features=0), ["model.features: 0 is too small; at least 1"]),
        (SubclassedConfig(layers=0), ["model.layers: 0 is too small; at least 1"]),
        (ApplicationsConfig(enlarge_to=0), ["model.enlarge_to: 0 is too small; at least 1"]),
        (CustomModelConfig(), ["model._target_: required and not given; e.g. model._target_=pets.build trust=[pets]"]),
        (
            MlpConfig(
                edits=[
                    "word",
                    {"swop": "a"},
                    {"freeze": [1]},
                    {"freeze": "a", "remove": "b"},
                    {"replace": {"att": "b"}},
                    {"rename": [["(", "a"]]},
                    {"insert": {"layer": {"units": 3}, "after": "a"}},
                ]
            ),
            [
                f"model.edits[0]: 'word' is not a mapping; {_ONE_VERB}",
                f"model.edits[1]: no edit is called 'swop'. There are {', '.join(VERBS)}",
                "model.edits[2].freeze: [1] is not a pattern of names, or a list of patterns; "
                "e.g. {freeze: backbone/*}",
                f"model.edits[3]: {{'freeze': 'a', 'remove': 'b'}} has 2 keys; {_ONE_VERB}",
                "model.edits[4].replace: there is no 'att'. Did you mean 'at'? It takes at, with, rebuild; "
                f"e.g. {VERBS['replace'].example}",
                f"model.edits[4].replace: {{'att': 'b'}} lacks at, with; e.g. {VERBS['replace'].example}",
                "model.edits[5].rename: [['(', 'a']] is not {old: new}, or rules [[PATTERN, REPLACEMENT], ...] of "
                "valid regular expressions; e.g. {rename: {stem_conv: stem}}",
                f"model.edits[6].insert.layer: {{'units': 3}} is not a layer, {LAYER}, or a list of layers in a chain; "
                f"e.g. {VERBS['insert'].example}",
            ],
        ),
        (CustomModelConfig("build"), ["model._target_: 'build' names no module; e.g. my_package.build"]),
        (
            CustomModelConfig("a b.c"),
            ["model._target_: 'a b.c' is not a dotted name; e.g. my_package.my_module.mine"],
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ModelConfig) else "",
)
def test_problems_are_told_in_words(config: ModelConfig, problems: list[str]) -> None:
    assert config.problems() == problems


def test_the_arguments_of_a_custom_model_are_the_users() -> None:
    assert CustomModelConfig("pets.build", {"width": 3}).arguments_for_build() == {"width": 3}


@pytest.mark.parametrize("verb", VERBS)
def test_the_example_of_every_edit_is_sound_on_the_command_line(verb: str) -> None:
    edits = run_config([f"model.edits=[{VERBS[verb].example}]"]).model.edits
    assert [list(item) for item in edits] == [[verb]]


def test_a_choice_is_given_by_its_lower_case_word() -> None:
    config = run_config(["model.norm=group"]).model
    assert isinstance(config, ConvnetConfig)
    assert config.norm is Norm.group


@pytest.mark.parametrize(
    ("overrides", "data"),
    [
        (["model=two_tower"], "DigitPairsConfig"),
        (["model=two_tower", "data=synthetic"], "SyntheticConfig"),
        (["data=digits", "model=two_tower"], "DigitsConfig"),
        (["model=convnet"], "DigitsConfig"),
    ],
    ids=" ".join,
)
def test_two_towers_bring_pairs_of_digits_unless_other_data_is_chosen(overrides: list[str], data: str) -> None:
    assert type(run_config(overrides).data).__name__ == data


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("model.widht=3", "Did you mean model.width"),
        ("model.width=abc", "model.width: 'abc' is not a whole number"),
        ("model.norm=grop", "'grop' is none of batch, group, layer, none"),
        ("model=convnett", "model=convnett: no such option. Did you mean model=convnet?"),
    ],
)
def test_a_mistyped_override_is_answered(override: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run_config([override])
    assert part in str(caught.value)


def _given(config: ModelConfig) -> dict[str, object]:
    arguments = config.arguments_for_build()
    assert list(arguments) == [each.name for each in fields(config) if each.name not in ("_target_", "edits")]
    return arguments
