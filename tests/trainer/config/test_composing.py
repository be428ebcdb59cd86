"""The command line becomes a frozen configuration, or one screen that says what is wrong with it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from nameplate.engine.config import Precision
from nameplate.section import ConfigError
from trainer.config import CONF, options, run_config, stored_config, to_yaml
from trainer.config.composing import register
from trainer.config.hydra_queries import composed, quickly_composed

GROUPS = options()
# What is the user's own has to be named.
REQUIRED = {
    "data=arrays",
    "data=csv",
    "data=table",
    "data=image_folder",
    "data=records",
    "data=custom",
    "data=tfds",
    "model=custom",
    "init=checkpoint",
    "init=transfer",
    "init=custom",
    "optimizer=custom",
    "schedule=custom",
    "model=file",
    "experiment=finetune",
}


@pytest.mark.parametrize("choice", [f"{group}={each}" for group, found in GROUPS.items() for each in found])
def test_every_option_of_every_group_composes_or_says_what_it_needs(choice: str) -> None:
    if choice not in REQUIRED:
        assert run_config([choice]).check()
        return
    with pytest.raises(ConfigError) as error:
        run_config([choice])
    assert all("e.g. " in problem for problem in error.value.problems)


ALIKE = [
    [],
    ["model=mlp", "model.dropout=0.5", "fit={epochs: 2}", "seed=5", "+objective.losses.y=mse"],
    ["fit.epochs=9", "experiment=digits_augmented", "data.augment=[]"],
    ["model={dropout: 0.3}", "model.dropout=0.4"],
    ["model.dropout=0.4", "model={dropout: 0.3}", "model=mlp"],
    ["debug=fast", "before={a: ['seed=1']}"],
    ["runs='a b'", "trust=[a, b]", "data=synthetic", "data=arrays", "data.path=${oc.env:HOME}"],
]


@pytest.mark.parametrize("overrides", ALIKE, ids=" ".join)
def test_options_that_were_composed_before_give_what_hydra_composes(overrides: list[str]) -> None:
    register()
    expected = composed(overrides)
    for _ in range(2):
        node = quickly_composed(overrides)
        assert OmegaConf.to_yaml(node) == OmegaConf.to_yaml(expected)
        assert OmegaConf.get_type(node, "model") is OmegaConf.get_type(expected, "model")
        node.seed = 99  # what one caller does with it is not the next one's


def test_the_configuration_is_frozen_all_the_way_down() -> None:
    config = run_config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 3  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.fit.early_stopping.patience = 3  # type: ignore[misc]


def test_a_frozen_schema_can_be_overridden() -> None:
    """H1: a node of a frozen dataclass is read-only until the flag is lifted."""
    config = run_config(["fit.epochs=3", "fit.early_stopping.patience=7", "objective.losses={a: huber}"])
    assert (config.fit.epochs, config.fit.early_stopping.patience) == (3, 7)
    assert config.objective.losses == {"a": "huber"}


def test_choices_are_words_of_an_enum() -> None:
    """H2: this omegaconf refuses Literal; the words are the names of the members."""
    assert run_config(["fit.precision=mixed_bfloat16"]).fit.precision is Precision.mixed_bfloat16
    with pytest.raises(ConfigError, match=r"fit\.precision"):
        run_config(["fit.precision=float64"])


def test_an_experiment_wins_over_the_configuration_and_the_command_line_over_it() -> None:
    """X6: with `_self_` after the experiment its values would be dropped silently."""
    assert run_config(["experiment=digits_augmented"]).fit.epochs == 30
    assert run_config(["experiment=digits_augmented", "fit.epochs=2"]).fit.epochs == 2
    assert run_config(["experiment=digit_pairs", "debug=fast"]).fit.steps == 1


def test_a_mistyped_experiment_is_an_error() -> None:
    """X6: an optional group would swallow it."""
    with pytest.raises(ConfigError, match=r"Did you mean experiment=digit_pairs\?"):
        run_config(["experiment=digit_piars"])


@pytest.mark.parametrize("path", sorted(CONF.glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_option_is_typed_and_begins_with_its_command(path: Path) -> None:
    """X6: a file without a schema would accept `lr=abc`."""
    text = path.read_text()
    defaults = (yaml.safe_load(text) or {}).get("defaults", [])
    if path.parent.name not in ("experiment", "debug"):
        assert str(defaults[0]).startswith("schema")
    comments = [line for line in text.splitlines() if line.startswith("# ") and "@package" not in line]
    assert comments[0].startswith(("# python -m trainer", "# python -m scripts.launch"))


def test_the_result_can_be_written_and_read_again(tmp_path: Path) -> None:
    config = run_config(["model=mlp", "model.hidden=[3,4]", "fit.precision=mixed_float16"])
    read = yaml.safe_load(to_yaml(config))
    assert read["model"]["hidden"] == [3, 4]
    assert read["fit"]["precision"] == "mixed_float16"


def test_values_that_hydra_cannot_read_bare_are_quoted() -> None:
    assert run_config(["run=zürich"]).run == "zürich"
    assert run_config(["run='a b'", "seed=3"]).run == "a b"


def test_a_stored_configuration_is_read_without_resolving_what_was_interpolated() -> None:
    text = to_yaml(run_config(["run=a_${seed}", "seed=3"]))
    assert "run: a_${seed}" in text
    assert (stored_config(text).run, stored_config(text).seed) == (None, 3)


MISTAKES: list[tuple[list[str], list[str]]] = [
    (["fit.epoch=3"], ["fit.epoch: no such key. Did you mean fit.epochs"]),
    (["lr=abc"], ["lr: no such key. Did you mean optimizer.learning_rate?"]),
    (["optimizer.learning_rate=abc"], ["optimizer.learning_rate: 'abc' is not a number"]),
    (["model=convent"], ["model=convent: no such option. Did you mean model=convnet?"]),
    (["optimizer=adma", "data=digit"], ["Did you mean optimizer=adam", "Did you mean data=digits"]),
    (["fit.epochs"], ["fit.epochs: not an override; write key=value"]),
    (["model"], ["model: no option given; write model=applications. There are applications, "]),
    (["model="], ["model=: no option given; write model=applications"]),
    (
        ["experiment=null"],
        ["experiment=null: null is not an option; leave experiment out, or choose one of digit_pairs"],
    ),
    (["model=mlp", "--epochs=3"], ["--epochs=3: no such option; --help lists them", "fit.epochs=3"]),
    (["batch_size=32"], ["Did you mean fit.global_batch?"]),
    (["fit.epochs=0"], ["fit.epochs: 0 is too small; at least 1 epoch"]),
    (["strategy=single", "strategy.replicas=2"], ["2 with strategy=single"]),
    (["strategy.gpus=[0,0]"], ["names a device twice"]),
    (["data=image_folder", "data.root=/absent"], ["data.root: no folder at '/absent'"]),
    (["data=image_folder"], ["data.root: required and not given"]),
    (["data=image_folder", "data.path=/absent"], ["data.path: no such key. Did you mean data.root"]),
    (["objective.class_weights.99=2"], ["objective.class_weights.99=2: write 'objective.class_weights={99: 2}'"]),
    (["model=mlp,convnet"], ["model=mlp,convnet: several values; add -m for a sweep"]),
    (["fit.epochs=1,2"], ["fit.epochs=1,2: several values; add -m for a sweep", "a list as [1,2]"]),
    (["objective.metrics=[acuracy]"], ["Did you mean 'accuracy'"]),
    (["objective.loss=msee"], ["objective.loss: no loss is called 'msee'. Did you mean 'mse'"]),
    (
        ["objective.loss={_target_: Huber, dleta: 2}"],
        ["Huber takes no 'dleta'. Did you mean 'delta'? It takes delta, "],
    ),
    (["objective.loss={name: Huber, delta: 2}"], ["the class is its _target_: {_target_: Huber, delta: 2}"]),
    (["objective.loss=3"], ["objective.loss: 3; write a name, or a name with arguments: objective.loss=huber or"]),
    (["objective.loss={_target_: Huber, delta: {class_name: x}}"], ["objective.loss.delta: {'class_name': 'x'} would"]),
    (["objective.label_smoothing=0.1"], ["sparse_categorical_crossentropy, objective.loss, does not take it"]),
    (["objective.metrics=[MeanIoU,Mean,mean_io]"], ["MeanIoU needs num_classes", "Mean: it averages", "'mean_io'"]),
    (["objective.weighted_metrics=[acuracy]"], ["objective.weighted_metrics: no metric is called 'acuracy'."]),
    (["optimizer=custom"], ["optimizer._target_: required and not given; e.g. optimizer._target_=pets.Mine"]),
    (
        ["optimizer=custom", "optimizer._target_=Nadm", "optimizer.arguments={learning_rate: 1}"],
        ["no optimizer is called 'Nadm'. Did you mean 'Nadam'", "write optimizer.learning_rate=1"],
    ),
    (["optimizer=custom", "optimizer._target_=LossScaleOptimizer"], ["fit.precision=mixed_float16 puts it around"]),
    (["schedule=custom"], ["schedule._target_: required and not given; e.g. schedule=custom schedule._target_="]),
    (
        ["schedule=custom", "schedule._target_=ExponentialDecay", "schedule.warmup_steps=3"],
        [
            "ExponentialDecay needs decay_rate; e.g. 'schedule.arguments={decay_rate: ...}'",
            "schedule.warmup_steps: unused",
        ],
    ),
    (
        [
            "callbacks={1a: EarlyStoping, b: {_target_: CSVLogger, filename: ../x}, c: ReduceLROnPlateau, "
            "d: LambdaCallback, e: RemoteMonitor, f: {_target_: CSVLogger, filename: /x}, g: 3}"
        ],
        [
            "callbacks.1a: '1a' cannot name a callback",
            "callbacks.1a: no callback is called 'EarlyStoping'. Did you mean 'EarlyStopping'",
            "callbacks.b.filename: '../x' is not inside the run's directory",
            "callbacks.c: ReduceLROnPlateau sets the learning rate, and so does the schedule; add schedule=constant",
            "callbacks.d: LambdaCallback: it is made of functions",
            "callbacks.e: RemoteMonitor: it sends what is measured to another machine",
            "_target_: keras.callbacks.RemoteMonitor and trust=[keras]",
            "callbacks.f.filename: '/x' is not inside",
            "callbacks.g: 3; write a name, or a name with arguments: 'callbacks={stop: {_target_: EarlyStopping",
        ],
    ),
    (["schedule._target_=CosineDecay"], ["CosineDecay is unused with schedule=cosine; add schedule=custom"]),
    (["optimizer.clipnorm=1", "optimizer.clipvalue=1"], ["only one of them may be set"]),
    (["optimizer.learning_rate=-1", "seed=-1"], ["optimizer.learning_rate: -1.0", "seed: -1 is out of range"]),
    (["schedule=exponential", "schedule.final=0"], ["never reaches 0"]),
    (["run=../x"], ["'../x' cannot name a directory"]),
    (["checkpoint.keep_last=0"], ["checkpoint.keep_last: 0"]),
    (["model.width=0", "data.validation=2"], ["model.width", "data.validation"]),
    (["naming.max_length=0"], ["naming.max_length"]),
    (["+foo=1"], ["foo: no such key", "At the top there are"]),
    (["+model.foo=1", "++fit.epoch=1"], ["model.foo: no such key", "fit.epoch: no such key. Did you mean fit.epochs"]),
    (["+interpolated={a: b}"], ["interpolated: no such key"]),
    (["interpolated={a: b}"], ["interpolated: no such key"]),
    (["seed=${oc.env:NOPE}"], ["seed: Environment variable 'NOPE' not found"]),
    (
        ["fit.epoch=3", "optimzer=adam", "fit.epochs=x"],
        ["fit.epoch:", "optimzer:", "fit.epochs: 'x' is not a whole number"],
    ),
    # How overrides are written.
    (["+experiment=digits_dreams", "+experiment=digit_pairs"], ["experiment: chosen more than once; choose one"]),
    (["+model=mlp"], ["+model=mlp: every run has a model; choose another without the +: model=mlp"]),
    (["++model=mlp"], ["choose another without the ++: model=mlp"]),
    (["~model"], ["~model: every run has a model; choose another with model=OPTION, one of applications, "]),
    (["~fit.epochs"], ["~fit.epochs: the key cannot be removed; leave it out for its default"]),
    (["+fit.epochs=3"], ["fit.epochs: exists already; write it without the +"]),
    (["model@x=mlp"], ["model@x=mlp: an option cannot be moved to another place; write model=mlp"]),
    (["optimizer.learning_rate=choice(1,2)"], ["optimizer.learning_rate: several values; add -m"]),
    (["data.augment=[1"], ["data.augment: not a list; write data.augment=[a,b]"]),
    (["fit={epochs:3,ep:2}"], ["fit.ep: no such key. Did you mean fit.steps or fit.epochs?"]),
    (["=3"], ["=3: not an override; write key=value"]),
    (["fit.epochs = 3", "seed= 3"], ["write fit.epochs=3", "seed= 3: no spaces around the '='; write seed=3"]),
    (["run='x"], ["run: a quote or a bracket is not closed"]),
    (["fit.epochs=1.5", "fit.xla=maybe"], ["'1.5' is not a whole number", "'maybe' is neither true nor false"]),
    (["fit.precision=half"], ["fit.precision: 'half' is none of float32, mixed_bfloat16, mixed_float16"]),
    (["experiment.foo=1"], ["experiment is chosen as a whole, experiment=digit_pairs, and has no keys"]),
    (["foo.bar=1"], ["foo.bar: no such key. At the top there are before, "]),
    (["fit.early_stopping=3"], ["3 cannot take the place of its keys; --help fit.early_stopping lists them"]),
    (["fit.epochs=null"], ["fit.epochs: null is not possible here"]),
    (["model=3"], ["model=3: no such option. There are applications, "]),
    (["--cfg", "jb"], ["--cfg: write --cfg job or --cfg hydra or --cfg all"]),
    (["-x", "--resolve"], ["-x: no such option; --help lists them", "--resolve: only with --cfg job"]),
    (["--multirun=3"], ["--multirun=3: --multirun takes no value"]),
]


@pytest.mark.parametrize(("overrides", "says"), MISTAKES, ids=lambda each: " ".join(each)[:60])
def test_every_mistake_is_answered_with_what_was_meant(overrides: list[str], says: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        run_config(overrides)
    for each in says:
        assert each in str(error.value)
    assert len(str(error.value).splitlines()) <= 24
    assert "interpolated, " not in str(error.value)
