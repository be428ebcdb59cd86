"""`model.edits`: what a configuration changes of its built model, in training, on resume, rebuilt, and refused."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import nameplate
from nameplate.errors import NameplateError
from nameplate.graph.tree import seeds
from nameplate.section import ConfigError
from tests.nameplate.training.test_resuming import cut
from tests.trainer.running import assert_same, content, train
from trainer.job.model import rebuild

pytestmark = pytest.mark.usefixtures("strategy")

SMALL = ["data.limit=32", "checkpoint.every_steps=2", "checkpoint.keep_last=9"]
MLP = [*SMALL, "model=mlp", "model.hidden=[8,4]"]
DROP = "{insert: {after: first, layer: {_target_: keras.layers.Dropout, rate: 0.1, name: drop}}}"
ONES = "kernel_initializer: {_target_: keras.initializers.Ones}"
WIDE = f"{{replace: {{at: hidden2, with: {{_target_: Dense, units: 6, {ONES}}}, rebuild: true}}}}"
EDITS = f"model.edits=[{{rename: {{hidden1: first}}}},{DROP},{WIDE},{{freeze: first}}]"


def names_of(model: Any) -> list[str]:
    return list(nameplate.layers(model))


def frozen(model: keras.Model) -> list[str]:
    return [name for name, layer in nameplate.layers(model).items() if not layer.trainable]


def test_an_edited_model_trains_resumes_bit_for_bit_and_is_rebuilt(tmp_path: Path) -> None:
    report = train(tmp_path, *MLP, EDITS, "fit.steps=4", "run=a")
    assert names_of(report.model) == ["image", "flat", "first", "drop", "hidden2", "label"]
    whole = content(tmp_path / "a")
    assert whole["weights:hidden2/kernel"].shape == (8, 6)
    np.testing.assert_allclose(whole["weights:hidden2/kernel"], 1.0, atol=0.1)
    cut(tmp_path / "a", 2)
    train(tmp_path, *MLP, EDITS, "fit.steps=4", "run=a")
    assert_same(content(tmp_path / "a"), whole)

    rebuilt = rebuild(str(tmp_path / "a")).model
    assert names_of(rebuilt) == names_of(report.model)
    assert frozen(rebuilt) == ["first"]
    for name, value in nameplate.read(rebuilt).items():
        np.testing.assert_array_equal(value, whole.get(f"weights:{name}", value))

    changed = EDITS.replace("freeze: first", "freeze: label")
    with pytest.raises(
        NameplateError, match=r'model.edits: \["...", {"freeze": "first"}\] -> \["...", {"freeze": "lab'
    ):
        train(tmp_path, *MLP, changed, "fit.steps=5", "run=a")
    assert train(tmp_path, *MLP, changed, "fit.steps=5", "run=a", "resume_changed=[model.edits]").steps == 5


def test_the_model_of_a_run_is_fine_tuned_with_another_head_and_a_frozen_body(tmp_path: Path) -> None:
    train(tmp_path, *MLP, "fit.steps=2", "run=a")
    before = content(tmp_path / "a")
    options = [*SMALL, "model=file", f"model.path={tmp_path / 'a'}", "fit.steps=4", "run=b"]
    options.append("model.edits=[{attach: {after: hidden1, hidden: [5], dropout: 0.2}},{freeze: hidden1}]")
    report = train(tmp_path, *options)
    assert names_of(report.model) == ["image", "flat", "hidden1", "label_hidden", "label_drop", "label"]
    whole = content(tmp_path / "b")
    for name in ("weights:hidden1/kernel", "weights:hidden1/bias"):
        np.testing.assert_array_equal(whole[name], before[name])
    assert [name for name in whole if "hidden1" in name and name.endswith(("@momentum", "@velocity"))] == []
    cut(tmp_path / "b", 2)
    train(tmp_path, *options)
    assert_same(content(tmp_path / "b"), whole)
    assert names_of(rebuild(str(tmp_path / "b")).model) == names_of(report.model)


def test_new_weights_and_random_layers_depend_on_the_seed_and_not_on_the_process(tmp_path: Path) -> None:
    attach = "model.edits=[{attach: {after: hidden1, hidden: [5], dropout: 0.2}}]"
    options = [*MLP, attach, "optimizer.learning_rate=1e-12", "fit.steps=1"]
    train(tmp_path, *options, "run=a", "seed=3")
    keras.layers.Dense(3)
    keras.utils.set_random_seed(99)
    report = train(tmp_path, *options, "run=b", "seed=3")
    assert_same(content(tmp_path / "a"), content(tmp_path / "b"))
    train(tmp_path, *options, "run=c", "seed=4")
    one, other = (content(tmp_path / run)["weights:label_hidden/kernel"] for run in "bc")
    assert not np.allclose(one, other, atol=1e-3)
    ((name, generator),) = seeds(report.model).items()
    assert name.startswith("label_drop")
    assert int(generator.state.numpy()[0]) == zlib.crc32(f"3/{name}".encode())


def test_a_dry_run_edits_and_a_subclassed_model_is_renamed_and_frozen(tmp_path: Path) -> None:
    mixer = ["model=subclassed", "model.layers=2", "data.limit=16", "fit.steps=1"]
    report = train(tmp_path, *mixer, "model.edits=[{rename: {block1: stem}},{freeze: stem}]", "dry_run=true")
    assert frozen(report.model)[0] == "stem"
    assert "block1" not in names_of(report.model)
    assert list(tmp_path.iterdir()) == []


OWN = """
import keras


class Times(keras.layers.Layer):
    def __init__(self, by, **more):
        super().__init__(**more)
        self.by = by

    def call(self, x):
        return self.by * x

    def get_config(self):
        return super().get_config() | {"by": self.by}
"""


def test_a_layer_of_the_users_own_needs_trust_also_to_be_rebuilt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_layers.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = "model.edits=[{insert: {after: flat, layer: {_target_: my_layers.Times, by: 2, name: twice}}}]"
    with pytest.raises(ConfigError, match=r"layer._target_: 'my_layers.Times' is not among .* trust=\[my_layers\]"):
        train(tmp_path, *MLP, own, "run=a")
    assert "my_layers" not in sys.modules
    train(tmp_path, *MLP, own, "fit.steps=1", "run=a", "trust=[my_layers]")
    with pytest.raises(NameplateError, match="--trust my_layers"):
        rebuild(str(tmp_path / "a"))
    assert "twice" in names_of(rebuild(str(tmp_path / "a"), trust=["my_layers"]).model)


def inserted(layer: str) -> str:
    return f"{{insert: {{after: label, layer: {{{layer}}}}}}}"


REFUSED: dict[str, tuple[list[str], list[str]]] = {
    "layers that cannot be made, before the data is opened": (
        [
            "{freeze: hidn}",
            inserted("_target_: Dens, units: 3"),
            inserted("_target_: Dense, unit: 3"),
            inserted("_target_: Lambda, function: x"),
            inserted("_target_: Bidirectional, layer: {_target_: TFSMLayer, filepath: x}"),
            inserted("_target_: StringLookup, vocabulary: words.txt"),
            inserted("_target_: Dense, units: 3, kernel_regularizer: {class_name: L2}"),
            inserted("_target_: keras.initializers.Zeros"),
            inserted("_target_: Dropout, rate: 2"),
        ],
        [
            "model.edits[1].insert.layer._target_: keras.layers has no 'Dens'. Did you mean 'Dense'?",
            "model.edits[2].insert.layer: keras.layers.Dense(units, ",
            "model.edits[3].insert.layer._target_: 'keras.layers.Lambda' could run code or open files; ",
            "model.edits[4].insert.layer.layer._target_: 'keras.layers.TFSMLayer' could run code or open files; ",
            "model.edits[5].insert.layer.vocabulary: 'words.txt' is a file to open; ",
            "model.edits[6].insert.layer.kernel_regularizer: {'class_name': 'L2'} would become an object; ",
            "model.edits[7].insert.layer: keras.initializers.Zeros makes a Zeros; an edit needs a keras.Layer",
            "model.edits[8].insert.layer: keras.layers.Dropout: Invalid value received for argument `rate`.",
        ],
    ),
    "names that the model lacks, without what follows from them": (
        [
            "{remove: hiden2}",
            "{rename: {hidn1: body}}",
            "{freeze: body}",
            "{freeze: 'lable*'}",
            "{insert: {after: flat, layer: {_target_: Dropout, rate: 0.1}}}",
            "{replace: {at: hidden1, with: {_target_: Dense, units: 3}}}",
            "{attach: {after: flat, heads: {hidden3: 3}, activation: rleu, hidden: [3]}}",
        ],
        [
            "model.edits[0].remove: no layer 'hiden2' in 'mlp', which has 5 layers. Did you mean 'hidden2'",
            "model.edits[1].rename: 'hidn1' matches nothing. Did you mean 'hidden1'",
            "model.edits[3].freeze: ",
            "model.edits[4].insert: 1 name of 'the edited mlp' breaks the policy 'strict':",
            "model.edits[5].replace: 1 layer cannot take the shapes after the edit; nothing was built:",
            "model.edits[6].attach: ",
        ],
    ),
    "a model of which nothing trains": (["{freeze: '*'}"], ["model.edits: every layer is frozen; leave one to train"]),
    "outputs that do not fit the data": (
        ["{replace: {at: label, with: {_target_: Dense, units: 4}}}"],
        ["model: the output 'label' has 4 units, and the target 'label' has 10 classes; its last layer needs 10 units"],
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_edits_that_cannot_be_made_are_refused_all_at_once(what: str, tmp_path: Path) -> None:
    edits, says = REFUSED[what]
    data = ["data=custom", "data._target_=no.such"] if "data is opened" in what else []
    with pytest.raises(ConfigError) as error:
        train(tmp_path, *MLP, *data, f"model.edits=[{','.join(edits)}]", "run=a")
    assert len(error.value.problems) == len(says)
    for problem, start in zip(error.value.problems, says, strict=True):
        assert problem.startswith(start)
    assert list(tmp_path.iterdir()) == []
