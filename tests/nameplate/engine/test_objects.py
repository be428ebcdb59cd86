"""Losses, metrics, optimizers and schedules by the names that Keras gives them, with their arguments."""

from __future__ import annotations

import inspect
from dataclasses import fields
from functools import reduce
from typing import Any

import keras
import pytest

from nameplate.data.targets import TargetError
from nameplate.engine.compile import make_metric, make_objective, make_optimizer, make_schedule
from nameplate.engine.config import OPTIMIZER_SCHEMAS, CustomOptimizerConfig, Decay, OptimizerConfig, ScheduleConfig
from nameplate.engine.objective_config import ObjectiveConfig
from nameplate.engine.objects import make
from nameplate.naming.keras_objects import AUGMENTATIONS, CALLBACKS, LOSSES, METRICS, OPTIMIZERS, SCHEDULES, Kind
from nameplate.section import ConfigError

KINDS = {kind.module: kind for kind in (LOSSES, METRICS, OPTIMIZERS, SCHEDULES, CALLBACKS, AUGMENTATIONS)}
VALUES: dict[str, Any] = {"num_classes": 3, "target_class_ids": [0], "boundaries": [2], "values": [0.1, 0.2]}
VALUES |= dict.fromkeys(["recall", "precision", "specificity", "sensitivity", "decay_rate"], 0.5)
VALUES |= {"factor": 1, "height_factor": 0.2, "width_factor": 0.2}
VALUES |= {"filename": "log.csv", "filepath": "model.keras"}
VALUES |= {"first_decay_steps": 5, "decay_steps": 5, "initial_learning_rate": 0.1}


def classes(module: str) -> dict[str, Any]:
    """Return the public classes of one of Keras' modules."""
    place = reduce(getattr, module.split(".")[1:], keras)
    found = {name: each for name, each in vars(place).items() if inspect.isclass(each)}
    if module == AUGMENTATIONS.module:  # of all layers those that change images
        return {name: each for name, each in found.items() if ".preprocessing.image_preprocessing." in each.__module__}
    return found


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_the_tables_have_every_class_of_keras_and_its_arguments(kind: Kind) -> None:
    found = classes(kind.module)
    assert {*kind.classes, *kind.refused, *kind.trusted} == set(found)
    assert {*kind.short.values()} <= {*kind.classes}
    for name, arguments in kind.classes.items():
        parameters = inspect.signature(found[name]).parameters.values()
        named = [each for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
        assert set(arguments) == {each.name + ("!" if each.default is each.empty else "") for each in named}


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_every_class_is_made_by_its_name_and_its_word(kind: Kind) -> None:
    for name, arguments in kind.classes.items():
        given = {each[:-1]: VALUES[each[:-1]] for each in arguments if each.endswith("!")}
        expected = classes(kind.module)[name](**given)
        for target in (name, f"{kind.module}.{name}", keras.src.utils.naming.to_snake_case(name)):
            value = {"_target_": target, **given}
            assert list(kind.problems("key", value)) == []
            made = make(kind, "key", value, trust=())
            assert type(made) is type(expected)
            assert kind is CALLBACKS or without_name(made) == without_name(expected)


def without_name(made: Any) -> dict[str, Any]:
    return {key: value for key, value in made.get_config().items() if key != "name"}


@pytest.mark.parametrize("kind", [LOSSES, METRICS, OPTIMIZERS], ids=["losses", "metrics", "optimizers"])
def test_the_words_that_keras_takes_are_taken(kind: Kind) -> None:
    words = getattr(keras.src, kind.module.removeprefix("keras.")).ALL_OBJECTS_DICT
    for word, meant in words.items():
        if inspect.isclass(meant) and meant.__name__ != "LossFunctionWrapper":
            assert kind.find(word) == meant.__name__
        elif meant.__name__ not in ("LossFunctionWrapper", meant.__name__.title()):
            assert kind.find(word)


OPTIONS = {name: schema for name, schema in OPTIMIZER_SCHEMAS.items() if name != "custom"}
# Settings that are not Keras' own: rates and momentum that train the models of this project, an epsilon without NaN.
OTHERS = {"name", "learning_rate", "momentum", "epsilon_1", "exclude_layers", "weight_decay"}


@pytest.mark.parametrize("option", OPTIONS)
def test_an_optimizer_has_an_option_with_all_its_arguments_and_the_defaults_of_keras(option: str) -> None:
    config = OPTIONS[option]()
    made = make_optimizer(config, learning_rate=0.25)
    own = {each.name for each in fields(config)} - {each.name for each in fields(OptimizerConfig)}
    usual = type(made)().get_config()
    general = [*OPTIMIZERS.classes["SGD"][2:]]
    assert own == set(OPTIMIZERS.classes[type(made).__name__]) - set(general)
    assert made.get_config()["learning_rate"] == pytest.approx(0.25)
    found = {key: value for key, value in made.get_config().items() if key not in OTHERS}
    assert found == {key: value for key, value in usual.items() if key not in OTHERS}


def test_every_optimizer_of_keras_has_an_option() -> None:
    assert {type(make_optimizer(schema(), learning_rate=1.0)).__name__ for schema in OPTIONS.values()} == set(
        OPTIMIZERS.classes
    )


def test_a_custom_optimizer_gets_its_arguments_and_the_settings_that_are_set() -> None:
    config = CustomOptimizerConfig(_target_="nadam", arguments={"beta_1": 0.5}, clipnorm=2.0, ema_momentum=0.9)
    made = make_optimizer(config, learning_rate=0.25)
    expected = keras.optimizers.Nadam(0.25, beta_1=0.5, clipnorm=2.0, use_ema=True, ema_momentum=0.9)
    assert without_name(made) == without_name(expected)
    decayed = make_optimizer(CustomOptimizerConfig(_target_="AdamW"), learning_rate=0.25)
    assert decayed.weight_decay == keras.optimizers.AdamW().weight_decay


def test_a_schedule_gets_the_rate_and_the_length_of_the_run() -> None:
    config = ScheduleConfig(decay=Decay.custom, _target_="PolynomialDecay", arguments={"power": 2.0})
    made = make_schedule(config, 0.5, 40)
    assert made.get_config() == keras.optimizers.schedules.PolynomialDecay(0.5, 40, power=2.0).get_config()
    shorter = ScheduleConfig(decay=Decay.custom, _target_="CosineDecay", arguments={"decay_steps": 7})
    assert make_schedule(shorter, 0.5, 40).get_config()["decay_steps"] == 7


def test_losses_and_metrics_are_those_of_each_output_with_logits_and_weights() -> None:
    config = ObjectiveConfig(
        loss={"_target_": "Huber", "delta": 2.0},
        losses={"b": "bce", "c": None},
        loss_weights={"b": 0.5},
        metrics=["mae", {"_target_": "AUC", "curve": "PR"}],
        output_metrics={"c": []},
        weighted_metrics=["mse"],
        output_weighted_metrics={"b": ["accuracy"], "c": []},
        label_smoothing=0.0,
    )
    made = make_objective(config, ["a", "b", "c"])
    assert made["loss"]["a"].get_config() == keras.losses.Huber(delta=2.0).get_config()
    assert made["loss"]["b"].get_config() == keras.losses.BinaryCrossentropy(from_logits=True).get_config()
    assert made["loss"]["c"] is None
    assert made["loss_weights"] == {"a": 1.0, "b": 0.5, "c": 1.0}
    assert [each.name for each in made["metrics"]["a"]] == ["mae", "auc"]
    assert made["metrics"]["a"][1].get_config()["from_logits"]
    assert made["metrics"]["a"][1] is not made["metrics"]["b"][1]
    assert [each.name for each in made["weighted_metrics"]["a"]] == ["mse"]
    assert made["weighted_metrics"]["b"] == ["accuracy"]
    assert made["metrics"]["c"] == made["weighted_metrics"]["c"] == []


def test_a_metric_is_called_the_same_in_every_process() -> None:
    names = [make_metric("key", {"_target_": "MeanIoU", "num_classes": 2}, trust=(), offered={}).name for _ in range(2)]
    assert names == ["mean_io_u", "mean_io_u"]
    assert make_metric("key", {"_target_": "AUC", "name": "own"}, trust=(), offered={}).name == "own"


def test_whatever_keras_refuses_is_reported_at_once() -> None:
    metrics = [{"_target_": "AUC", "curve": "X"}, {"_target_": "F1Score", "average": "odd"}, "mse", "mse"]
    with pytest.raises(ConfigError) as error:
        make_objective(ObjectiveConfig(loss={"_target_": "Huber", "reduction": "odd"}, metrics=metrics), ["y"])
    text = str(error.value)
    assert "objective.loss: Huber: Invalid value for argument `reduction`" in text
    assert "objective.metrics: AUC: Invalid AUC curve" in text
    assert "objective.metrics: F1Score: Invalid `average`" in text
    with pytest.raises(ConfigError, match="two metrics of 'y' are called 'mse'; give one a name of its own"):
        make_objective(ObjectiveConfig(metrics=metrics[2:]), ["y"])


def test_without_trust_nothing_else_is_made() -> None:
    for target in ("keras.saving.load_model", "keras.metrics.AUC", "os.system"):
        with pytest.raises(TargetError, match=rf"objective.loss._target_: '{target}' is not among what may be run"):
            make(LOSSES, "objective.loss", {"_target_": target}, trust=())
