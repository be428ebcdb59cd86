"""A policy in a file: the same rules wherever a policy is taken, or one error with all that is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import nameplate
from nameplate.errors import FileFormatError, NameplateError
from nameplate.formats import plain_yaml
from nameplate.formats.policy_file import policy_of, read_policy
from nameplate.naming.policy import NamingError, Policy

SETTINGS: dict[str, Any] = {"max_length": 40, "patterns": {"Dense": ".*_fc"}, "forbidden": ["tmp"], "required": ["x"]}
TEXT = "max_length: 40\npatterns: {Dense: '.*_fc'}\nforbidden: [tmp]\nrequired:\n- x\n"


def model() -> keras.Model:
    built = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="logits")], name="mine")
    built.compile("sgd", "mse")
    return built


@pytest.mark.parametrize(("name", "text"), [("p.yaml", TEXT), ("p.YML", TEXT), ("p.json", json.dumps(SETTINGS))])
def test_a_file_is_the_policy_of_its_settings(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert read_policy(path) == policy_of(path) == policy_of(str(path)) == Policy(**SETTINGS)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("mode: off", Policy(mode="off")),  # type: ignore[arg-type]  # which YAML reads as false
        ("prefixes: {0: top_, body: b_}", Policy(prefixes={"0": "top_", "body": "b_"})),
    ],
)
def test_yaml_is_read_as_it_is_meant(tmp_path: Path, text: str, policy: Policy) -> None:
    (tmp_path / "p.yaml").write_text(text)
    assert read_policy(tmp_path / "p.yaml") == policy


WRONG = {
    "maxlength: 3\nrequird: [a]": "no setting 'maxlength'. Did you mean 'max_length'?\n  no setting 'requird'",
    "max_length: long\nautomatic: [1]": "automatic=[1]: True or False is needed, not a list of 1\nPolicy: max_length",
    "max_length: 0": "naming.max_length: 0 is not between 1 and 200",
    "mode: strickt": "no naming mode 'strickt'; there are strict, repair, report, off. Did you mean 'strict'",
    "forbidden: ['(']": "is not a regular expression",
    "- strict": "a policy is a dictionary of settings",
    "": "a policy is a dictionary of settings",
    "mode: strict\nmode: off": "the key 'mode' appears twice",
    "required: &a [x]\nforbidden: *a": "an anchor or an alias",
    "mode: !!python/name:os.system strict": "the tag",
    "mode: [": "not the YAML of a policy",
    "required: " + "[" * 5000: "nested deeper than",
    "#" * (plain_yaml.LARGEST + 1): "at most",
}


@pytest.mark.parametrize("text", WRONG, ids=[text[:20] for text in WRONG])
def test_what_no_policy_has_is_refused_with_the_file_and_the_nearest(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(FileFormatError) as refused:
        read_policy(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert WRONG[text] in str(refused.value)


def test_a_path_without_a_policy_is_told(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("mode: strict")
    (tmp_path / "p.json").write_bytes(b"\xff")
    for path, words in {
        "polcy.yaml": "there is no such file. Did you mean 'policy.yaml'",
        "p.json": "not text",
        "nowhere/p.yaml": "there is no such file",
    }.items():
        with pytest.raises(NameplateError, match=words):
            policy_of(tmp_path / path)
    with pytest.raises(NameplateError, match=r"Did you mean 'strict'\? Or give the path of a policy in a \.yaml"):
        policy_of("strickt")


def test_every_verb_that_takes_a_policy_takes_its_file(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(TEXT)
    assert [violation.rule for violation in nameplate.check(model(), path)] == ["pattern"]
    with pytest.raises(NamingError, match="logits"):
        nameplate.enforce(model(), str(path))
    new = keras.layers.Dense(2, name="new")
    with pytest.raises(NamingError, match="new"):
        nameplate.insert(model(), new, after="logits", policy=path, verify=False)
    uncompiled = nameplate.rename(model(), {}, uncompiled=True)
    assert "logits_fc" in nameplate.layers(nameplate.rename(uncompiled, {"logits": "logits_fc"}, policy=path))
    x, y = np.zeros((4, 4), "float32"), np.zeros((4, 2), "float32")
    with pytest.raises(NamingError, match="logits"):
        nameplate.fit(model(), x, y, run=tmp_path / "run", naming=path)
    assert not (tmp_path / "run" / "checkpoints").exists() or not list((tmp_path / "run" / "checkpoints").iterdir())
