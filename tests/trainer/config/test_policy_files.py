"""`naming=FILE` on a command line is the policy in the file, whose rules the run keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

import nameplate
from nameplate.errors import NameplateError
from nameplate.naming.policy import Policy
from trainer.cli.names import main
from trainer.config.hydra_queries import with_policy_file
from trainer.config.serialization import stored_config, to_yaml

TEXT = """
mode: repair
patterns: {Dense: "it's_.*"}
prefixes: {0: a_, body/stem: b_}
required: ['null']
automatic: true
"""
POLICY = Policy(
    mode="repair",  # type: ignore[arg-type]
    patterns={"Dense": "it's_.*"},
    prefixes={"0": "a_", "body/stem": "b_"},
    required=["null"],
    automatic=True,
)


def test_a_file_stands_for_its_settings(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(TEXT)
    config = nameplate.run_config(["model=mlp", f"naming={path}"])
    assert config.naming == POLICY
    path.unlink()  # a stored run has the rules
    assert stored_config(to_yaml(config)).naming == POLICY
    path.write_text(TEXT)
    assert nameplate.run_config([f"naming={path}", "naming.automatic=false"]).naming.automatic is False


def test_other_overrides_stay_as_they_are() -> None:
    overrides = ["naming=strict", "data.path=naming.yaml", "run=policy.yaml", "--cfg", "job"]
    assert with_policy_file(overrides) == overrides


@pytest.mark.parametrize(
    ("text", "words"),
    [("requird: [a]", "Did you mean 'required'"), ("required: ['${oc.env:HOME}']", "nothing is looked up")],
)
def test_what_is_wrong_in_the_file_is_told(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(NameplateError, match=words):
        nameplate.run_config([f"naming={tmp_path / 'p.yaml'}"])
    with pytest.raises(NameplateError, match="there is no such file"):
        nameplate.run_config([f"naming={tmp_path / 'q.json'}"])


def test_names_of_a_file_are_checked_by_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import keras

    layers = [keras.Input((4,), name="x"), keras.layers.Dense(2, name="logits")]
    keras.Sequential(layers, name="mine").save(tmp_path / "m.keras")
    (tmp_path / "p.json").write_text('{"required": ["head"]}')
    assert main([str(tmp_path / "m.keras"), "--policy", str(tmp_path / "p.json")]) == 1
    assert "head" in capsys.readouterr().out
