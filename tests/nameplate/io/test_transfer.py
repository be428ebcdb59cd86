from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import nameplate
from nameplate.errors import NameplateError
from nameplate.io.transfer import TransferError, write_plan
from nameplate.weights.adaptation import AdaptError, Classes, reshaped
from tests.nameplate.naming_models import functional, nested


def net(classes: int, channels: int = 3, *, stem: str = "stem") -> keras.Model:
    x = image = keras.Input((6, 6, channels), name="image")
    x = layers.Conv2D(4, 3, name=stem)(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Flatten(name="flat")(x)
    return keras.Model(image, layers.Dense(classes, name="head")(x), name="net")


def test_a_backbone_is_taken_by_name_and_a_new_head_is_kept() -> None:
    source, target = net(3, stem="conv"), net(5)
    plan = nameplate.plan(source, target, {"conv": "stem"}, keep=["head"])
    made = nameplate.apply(plan, target)
    new, old, before = nameplate.read(made), nameplate.read(source), nameplate.read(target)

    assert plan.fits
    assert plan.counts() == {"renamed": 2, "taken": 4, "dropped": 2, "kept": 2}
    assert np.array_equal(new["stem/kernel"], old["conv/kernel"])
    assert np.array_equal(new["head/kernel"], before["head/kernel"])
    assert np.array_equal(nameplate.read(target)["stem/kernel"], before["stem/kernel"])
    assert plan.origins()["stem/kernel"] == {"file": "net", "name": "conv/kernel", "rule": "conv=stem"}


def test_only_what_is_wanted_is_taken() -> None:
    source, target = net(3), net(5)
    plan = nameplate.plan(source, target, take=["stem", "norm"])

    assert plan.fits
    assert plan.counts() == {"taken": 6, "dropped": 2, "kept": 2}


def test_a_plan_is_data_that_prints_and_becomes_json() -> None:
    plan = nameplate.plan(net(3), net(3))

    assert plan.table().splitlines()[0] == "from net: 8 taken"
    assert json.loads(plan.json())["lines"][0] == {
        "target": "stem/kernel",
        "source": "stem/kernel",
        "verdict": "taken",
        "detail": "",
    }


def test_what_is_left_over_is_refused_with_what_to_do() -> None:
    source, target = net(3, stem="conv"), net(5)
    with pytest.raises(TransferError) as refused:
        nameplate.apply(nameplate.plan(source, target), target)

    told = str(refused.value)
    assert "4 of 8 arrays would be taken from net, 6 are left over" in told
    assert "missing     stem/kernel" in told
    assert "unexpected  conv/kernel" in told
    assert "shape       head/bias" in told
    assert "adapt={NAME: rule}" in told


@pytest.mark.parametrize(("rule", "channels"), [("mean", 1), ("slice", 2), ("repeat", 5), ("mean", 5)])
def test_input_channels_are_adapted_by_a_named_rule(rule: str, channels: int) -> None:
    source, target = net(3), net(3, channels)
    made = nameplate.apply(nameplate.plan(source, target, adapt={"stem": rule}), target)

    assert np.array_equal(nameplate.read(made)["stem/bias"], nameplate.read(source)["stem/bias"])
    kernel, other = nameplate.read(made)["stem/kernel"], nameplate.read(source)["stem/kernel"]
    if rule == "slice":
        assert np.array_equal(kernel, other[:, :, :channels])
    if rule == "mean":
        assert np.allclose(kernel.sum(2), other.sum(2), atol=1e-6)


def test_the_classes_named_in_both_keep_their_rows() -> None:
    source, target = net(3), net(4)
    classes = Classes(("cat", "dog", "cow"), ("cow", "hen", "cat", "pig"))
    made = nameplate.apply(nameplate.plan(source, target, adapt={"head": "classes"}, classes=classes), target)
    new, old, own = (
        nameplate.read(made)["head/kernel"],
        nameplate.read(source)["head/kernel"],
        nameplate.read(target)["head/kernel"],
    )

    assert np.array_equal(new[:, 0], old[:, 2])
    assert np.array_equal(new[:, 2], old[:, 0])
    assert np.array_equal(new[:, [1, 3]], own[:, [1, 3]])


@pytest.mark.parametrize(
    ("rule", "source", "target", "message"),
    [
        ("means", (3, 3, 3, 4), (3, 3, 1, 4), "no rule 'means'; there are repeat, slice, mean, classes. Did you mean"),
        ("slice", (3, 3, 1, 4), (3, 3, 3, 4), "1 input channels have no slice of 3"),
        ("mean", (3, 3, 1, 4), (3, 3, 3, 5), "differ in more than input channels"),
        ("mean", (3,), (4,), "have no input channels"),
        ("classes", (2, 3), (2, 4), "needs the names of the classes"),
    ],
)
def test_a_rule_that_cannot_bridge_two_shapes_says_why(rule: str, source: Any, target: Any, message: str) -> None:
    with pytest.raises(AdaptError) as refused:
        reshaped(rule, np.ones(source, "float32"), target)
    assert message in str(refused.value)


def test_rules_and_patterns_that_are_for_nothing_are_errors() -> None:
    source, target = net(3), net(3)
    for options in ({"rules": ["bone=stem"]}, {"keep": ["haed"]}, {"adapt": {"stem": "mean"}}):
        with pytest.raises(NameplateError, match=r"nothing|none"):
            nameplate.plan(source, target, **options)


def test_a_plan_is_for_the_model_that_it_was_made_for() -> None:
    with pytest.raises(TransferError, match="made for another model"):
        nameplate.apply(nameplate.plan(net(3), net(3)), net(4))


def test_a_file_is_a_source(tmp_path: Path) -> None:
    source, target = net(3), net(3)
    source.save_weights(tmp_path / "net.weights.h5")
    nameplate.save(source, tmp_path / "net.keras")

    for name in ("net.weights.h5", "net.keras"):
        made = nameplate.apply(nameplate.plan(tmp_path / name, target), target)
        assert np.array_equal(nameplate.read(made)["head/kernel"], nameplate.read(source)["head/kernel"])


def test_values_go_to_every_replica(strategy: Any) -> None:
    source = net(3)
    with strategy.scope():
        target = net(3)
        write_plan(nameplate.plan(source, target), target)
    for each in target.weights:
        one, other = (component.numpy() for component in each._value.values)
        assert np.array_equal(one, other)
    assert np.array_equal(nameplate.read(target)["stem/kernel"], nameplate.read(source)["stem/kernel"])


def test_layers_are_frozen_by_pattern() -> None:
    model = nested()

    assert nameplate.set_trainable(model, ["backbone", "deep/*"]) == ["logits/kernel", "logits/bias"]
    assert nameplate.set_trainable(model, ["deep"], True)[0] == "deep/core/c1/kernel"
    with pytest.raises(NameplateError, match="Did you mean 'deep'"):
        nameplate.set_trainable(functional_with_deep(), ["dep"])


def test_a_layer_that_thaws_in_a_frozen_container_trains_alone() -> None:
    model = nested()
    nameplate.set_trainable(model, ["*"])

    assert nameplate.set_trainable(model, ["deep/core/c1"], True) == ["deep/core/c1/kernel", "deep/core/c1/bias"]
    assert nameplate.layer(model, "deep").trainable
    assert nameplate.set_trainable(model, ["deep/core/c1"]) == []


def test_a_model_that_is_frozen_as_a_whole_thaws_by_pattern() -> None:
    model = nested()
    model.trainable = False

    assert nameplate.set_trainable(model, ["logits"], True) == ["logits/kernel", "logits/bias"]


def functional_with_deep() -> keras.Model:
    return nameplate.rename(functional(), {"hidden": "deep"})
