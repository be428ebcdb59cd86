"""What differs between two configurations, and what of it a run may go on with."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest

from nameplate.section import ConfigError
from nameplate.training import config_diff
from nameplate.training.config_diff import ConfigDiff, ConfigDiffError
from trainer.config import run_config, to_yaml
from trainer.config.serialization import agreement


@functools.cache
def stored(*overrides: str) -> str:
    return to_yaml(run_config(overrides))


def between(old: list[str], new: list[str]) -> tuple[ConfigDiff, str]:
    said: list[str] = []
    found = agreement(run_config(new), say=said.append)(stored(*old), "a step_00000004")
    return found, "\n".join(said)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("fit.epochs=24", "fit.epochs: 12 -> 24  (the learning rate follows the new length from here on)"),
        ("log.every_steps=7", "log.every_steps: 50 -> 7"),
        ("checkpoint.async_save=true", "checkpoint.async_save: false -> true"),
        ("fit.xla=true", "fit.xla: false -> true  (the same numbers, to rounding)"),
        ("strategy.replicas=4", "strategy.replicas: null -> 4  (any number of replicas gives the same numbers"),
        ("data.resident=never", 'data.resident: "auto" -> "never"'),
        ("naming=off", "naming"),
    ],
)
def test_a_harmless_change_is_said_with_both_values(change: str, says: str) -> None:
    found, said = between([], [change])
    assert says in said
    assert found.meant == ()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("fit.global_batch=128", "fit.global_batch: 64 -> 128"),
        ("seed=3", "seed: 0 -> 3"),
        ("optimizer.learning_rate=0.5", "optimizer.learning_rate: 0.001 -> 0.5"),
        ("optimizer=sgd", 'optimizer: "adam" -> "sgd"'),
        ("schedule=linear", 'schedule.decay: "cosine" -> "linear"'),
        ("data.augment=[flip]", 'data.augment: [] -> ["flip"]'),
        ("data=digit_pairs", 'data: "digits" -> "digit_pairs"'),
        ("model.dropout=0.5", "model.dropout: 0.3 -> 0.5"),
        ("strategy.sync_batch_norm=false", "strategy.sync_batch_norm: true -> false"),
        ("fit.precision=mixed_bfloat16", 'fit.precision: "float32" -> "mixed_bfloat16"'),
    ],
)
def test_a_change_of_what_is_computed_is_refused_unless_it_is_meant(change: str, says: str) -> None:
    with pytest.raises(ConfigDiffError) as error:
        between([], [change])
    assert says in str(error.value)
    key = change.partition("=")[0]
    assert f"{key}" in str(error.value).rpartition("resume_changed=[")[2]
    for meant in (key, key.partition(".")[0]):
        found, said = between([], [change, f"resume_changed=[{meant}]"])
        assert says in said
        assert found.touches(key)


def test_all_that_is_refused_is_told_at_once_with_the_setting_that_allows_it() -> None:
    with pytest.raises(ConfigDiffError) as error:
        between([], ["seed=1", "fit.global_batch=32", "fit.epochs=3"])
    assert "2 settings are not what a step_00000004 was trained with" in str(error.value)
    assert "resume_changed=[seed,fit.global_batch]" in str(error.value).replace(
        "fit.global_batch,seed", "seed,fit.global_batch"
    )
    assert "fit.epochs" not in str(error.value)


def test_the_same_configuration_is_no_drift() -> None:
    assert between(["seed=3"], ["seed=3"]) == (ConfigDiff(()), "")


def test_a_setting_that_an_older_version_did_not_know_is_no_difference_at_its_default() -> None:
    old, new = {"fit": {"epochs": 3}}, {"fit": {"epochs": 3, "novel": 1, "other": 2}}
    found = config_diff.compare(old, new, defaults={"fit": {"novel": 1, "other": 1}})
    assert [change.key for change in found] == ["fit.other"]


def test_a_key_that_does_not_exist_cannot_be_meant() -> None:
    with pytest.raises(ConfigError, match=r"resume_changed: no key or section 'optimiser'. Did you mean 'optimizer'"):
        run_config(["resume_changed=[optimiser]"])


def test_nothing_of_the_environment_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_OF_MINE", "s3cret")
    own = ["data=custom", "data._target_=a.b", "trust=[a]"]
    given = ["data.arguments.key=${oc.env:TOKEN_OF_MINE}", "data.arguments.many=[1,'x${oc.env:TOKEN_OF_MINE}']"]
    config = run_config([*own, *given, "data.arguments.again=${data.arguments.key}"])
    assert config.data.arguments == {"key": "s3cret", "many": [1, "xs3cret"], "again": "s3cret"}  # type: ignore[attr-defined]
    assert "s3cret" not in to_yaml(config)
    assert "${oc.env:TOKEN_OF_MINE}" in to_yaml(config)
    monkeypatch.setenv("TOKEN_OF_MINE", "another")
    assert between([*own, *given], [*own, *given])[1] == ""


def test_nothing_in_a_stored_configuration_is_resolved_or_made(tmp_path: Path) -> None:
    """A checkpoint of someone else's must not reach the environment, Python or a shell."""
    ran = tmp_path / "ran"
    hostile = (
        f"optimizer: {{_target_: os.system, command: 'touch {ran}'}}\n"
        "seed: ${oc.env:HOME}\n"
        f"model: {{_target_: keras.saving.load_model, safe_mode: false}}\n"
    )
    with pytest.raises(ConfigDiffError) as error:
        agreement(run_config(), say=print)(hostile, "theirs")
    assert "${oc.env:HOME}" in str(error.value)
    assert os.environ["HOME"] not in str(error.value).replace("${oc.env:HOME}", "")
    assert not ran.exists()


def test_yaml_that_would_make_objects_is_refused() -> None:
    with pytest.raises(ConfigError, match="the stored configuration"):
        agreement(run_config(), say=print)("seed: !!python/object/apply:os.system ['true']\n", "theirs")
