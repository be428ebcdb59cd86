"""Whatever is an object in Keras is named on the command line, Keras' own and the user's, and trains and resumes."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from nameplate.data.digits import read_digits
from nameplate.errors import NameplateError
from nameplate.section import ConfigError
from tests.long import cases
from tests.nameplate.training.test_resuming import cut
from tests.trainer.running import about, assert_same, content, records, train

OWN = """
import keras


@keras.saving.register_keras_serializable(package="my_parts")
class Scaled(keras.losses.Loss):
    def __init__(self, by=2.0, **more):
        super().__init__(**more)
        self.by = by

    def call(self, y_true, y_pred):
        return self.by * keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)


def scaled(y_true, y_pred, by=2.0):
    return by * keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)


def made(by=2.0):
    return lambda y_true, y_pred: scaled(y_true, y_pred, by)


def largest(y_true, y_pred):
    return keras.ops.max(y_pred, axis=-1)


class Slow(keras.optimizers.SGD):
    def __init__(self, learning_rate=0.1, share=0.5, **more):
        super().__init__(learning_rate, **more)
        self.share = share

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(self.share * gradient, variable, learning_rate)

    def get_config(self):
        return super().get_config() | {"share": self.share}


class Halving(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, initial_learning_rate, every):
        self.first, self.every = initial_learning_rate, every

    def __call__(self, step):
        return self.first * 0.5 ** keras.ops.floor(keras.ops.cast(step, "float32") / self.every)

    def get_config(self):
        return {"initial_learning_rate": self.first, "every": self.every}


def word():
    return "text"


CALLED = []


class Tells(keras.callbacks.Callback):
    def __init__(self, mark):
        super().__init__()
        self.mark, self.epochs = mark, []

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(epoch)
        CALLED.append((self.mark, list(self.epochs)))
"""
SMALL = ["model=mlp", "model.hidden=[4]", "data.limit=16", "fit.global_batch=16", "optimizer=sgd"]


@pytest.fixture(autouse=True)
def _parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_parts.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))


def weights(run: Path) -> dict[str, np.ndarray]:
    return {name: each for name, each in content(run).items() if name.startswith("weights:")}


OBJECTS: dict[str, list[str]] = {
    "a class": ["objective.loss={_target_: my_parts.Scaled, by: 3}"],
    "a function": ["objective.loss={_target_: my_parts.scaled, by: 3}"],
    "a function that makes one": ["objective.loss={_target_: my_parts.made, by: 3}"],
}


@pytest.mark.parametrize("own", OBJECTS)
def test_a_loss_of_the_users_own_trains_as_keras_trains_with_it(own: str, tmp_path: Path) -> None:
    train(tmp_path, *SMALL, *OBJECTS[own], "trust=[my_parts]", "fit.steps=1", "run=a")
    train(tmp_path, *SMALL, "optimizer.learning_rate=0.3", "optimizer.momentum=0", "fit.steps=1", "run=b")
    # The first step of momentum is a plain one, so three times the loss is three times the rate.
    ours, stock = weights(tmp_path / "a"), weights(tmp_path / "b")
    for name, value in ours.items():
        np.testing.assert_allclose(value, stock[name], atol=1e-6)


def test_metrics_optimizers_and_schedules_of_the_users_own(tmp_path: Path) -> None:
    options = [
        *(each for each in SMALL if each != "optimizer=sgd"),
        *("objective.metrics=[my_parts.largest,accuracy]", "objective.weighted_metrics=[acc]"),
        *("optimizer=custom", "optimizer._target_=my_parts.Slow", "optimizer.arguments={share: 0.25}"),
        *("schedule=custom", "schedule._target_=my_parts.Halving", "schedule.arguments={every: 1}"),
        *("optimizer.learning_rate=0.5", "trust=[my_parts]", "checkpoint.every_steps=1", "fit.steps=3"),
    ]
    report = train(tmp_path, *options, "run=a")
    assert {"largest", "accuracy", "acc", "val_largest"} <= set(report.values)
    plain = [*SMALL, "optimizer.momentum=0", "schedule=custom", "schedule._target_=PiecewiseConstantDecay"]
    rates = "schedule.arguments={boundaries: [0, 1], values: [0.125, 0.0625, 0.03125]}"
    train(tmp_path, *plain, rates, "fit.steps=3", "run=b")
    ours, stock = weights(tmp_path / "a"), weights(tmp_path / "b")
    for name, value in ours.items():
        np.testing.assert_allclose(value, stock[name], atol=1e-6)


def test_a_configured_objective_trains_as_the_same_objects_in_keras(tmp_path: Path) -> None:
    """One batch an epoch, so that the order of the examples does not matter."""
    options = ["model=mlp", "model.hidden=[4]", "data.limit=16", "fit.global_batch=16", "data.validation=0"]
    begun = train(tmp_path, *options, "optimizer.learning_rate=1e-12", "fit.steps=1", "run=begun").model
    assert begun is not None
    named = ["objective.loss={_target_: SparseCategoricalCrossentropy, ignore_class: 3}", "optimizer=nadam"]
    named += ["optimizer.beta_1=0.8", "optimizer.learning_rate=0.01", "fit.steps=4", "run=a"]
    named += ["objective.metrics=[{_target_: SparseTopKCategoricalAccuracy, k: 2, name: top2}]"]
    report = train(tmp_path, *options, *named)
    stock = keras.models.clone_model(begun)
    stock.set_weights(begun.get_weights())
    stock.compile(
        keras.optimizers.Nadam(0.01, beta_1=0.8),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=3),
        metrics=[keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")],
    )
    x, y = (each[:16] for each in read_digits())
    history = stock.fit(x, y, batch_size=16, epochs=4, verbose=0).history
    np.testing.assert_allclose(report.history["loss"], history["loss"], rtol=1e-4)
    np.testing.assert_allclose(report.history["top2"][1:], history["top2"][1:])  # at first there are ties


NAMED: dict[str, list[str]] = {
    option: [f"optimizer={option}"]
    for option in ("nadam", "adamax", "lamb", "adagrad", "adadelta", "adafactor", "ftrl", "muon", "schedule_free_adamw")
}
NAMED["schedule"] = ["schedule=custom", "schedule._target_=CosineDecayRestarts"]
NAMED["schedule"] += ["schedule.arguments={first_decay_steps: 2}"]
NAMED["by name"] = ["optimizer=custom", "optimizer._target_=Lamb", "optimizer.arguments={beta_1: 0.5}"]


@pytest.mark.parametrize("named", cases(NAMED, short=["adafactor", "schedule_free_adamw", "schedule"]))
def test_what_is_named_resumes_bit_for_bit(named: str, tmp_path: Path) -> None:
    options = ["model=mlp", "model.hidden=[4]", "data.limit=32", *NAMED[named], "checkpoint.every_steps=3"]
    train(tmp_path, *options, "fit.steps=6", "fit.epochs=9", "run=whole", "checkpoint.keep_last=9")
    whole = content(tmp_path / "whole")
    assert all(np.isfinite(each).all() for each in whole.values() if each.dtype.kind == "f")
    cut(tmp_path / "whole", 3)
    train(tmp_path, *options, "fit.steps=6", "fit.epochs=9", "run=whole", "checkpoint.keep_last=9")
    assert_same(content(tmp_path / "whole"), whole)
    assert about(tmp_path / "whole")


def test_everything_that_cannot_be_made_is_refused_at_once_before_the_data(tmp_path: Path) -> None:
    options = [
        *("objective.loss={_target_: my_parts.Scaled, bye: 3}", "objective.metrics=[my_parts.absent,their_parts.x]"),
        *("optimizer=custom", "optimizer._target_=my_parts.Slow", "optimizer.arguments={shar: 1}"),
        *("schedule=custom", "schedule._target_=my_parts.Halving", "data=custom", "data._target_=no.such"),
    ]
    with pytest.raises(ConfigError) as error:
        train(tmp_path, "model=mlp", *options, "trust=[my_parts]", "run=a")
    text = str(error.value)
    assert "objective.loss: my_parts.Scaled(" not in text  # it takes any keyword, and its base class refuses it later
    assert "objective.metrics._target_: my_parts has no 'absent'" in text
    assert "objective.metrics._target_: 'their_parts.x' is not among what may be run: keras.metrics.*" in text
    assert "trust=[their_parts]" in text
    assert "schedule: my_parts.Halving(initial_learning_rate, every) cannot be called:\n  it needs 'every'" in text
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["objective.loss=my_parts.word"], "objective.loss: my_parts.word returned str; it must return a keras.losses"),
        (["objective.loss={_target_: my_parts.Scaled, bye: 3}"], "objective.loss: my_parts.Scaled raised TypeError"),
        (["objective.metrics=[mse]", "objective.losses={label: null}"], "no output has a loss"),
        (["objective.losses={label: mse}"], "the loss 'mse' needs values, and the target 'label' holds class numbers"),
    ],
)
def test_what_cannot_be_trained_with_is_refused(options: list[str], says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        train(tmp_path, "model=mlp", *options, "trust=[my_parts]", "run=a")
    assert says in str(error.value)


def test_a_changed_argument_is_refused_by_its_key_and_may_be_meant(tmp_path: Path) -> None:
    def run(ignored: int, *more: str) -> Any:
        loss = f"objective.loss={{_target_: SparseCategoricalCrossentropy, ignore_class: {ignored}}}"
        return train(tmp_path, *SMALL, loss, "run=a", *more)

    run(3, "fit.steps=1")
    with pytest.raises(NameplateError, match=r"objective.loss.ignore_class: 3 -> 4"):
        run(4, "fit.steps=2")
    assert run(4, "fit.steps=2", "resume_changed=[objective.loss.ignore_class]").steps == 2


# ---- callbacks ------------------------------------------------------------------------------------------------------

CALLBACKS = [
    "schedule=constant",
    "callbacks={second: {_target_: my_parts.Tells, mark: b}, first: {_target_: my_parts.Tells, mark: a}, "
    "slower: {_target_: ReduceLROnPlateau, monitor: loss, patience: 1, min_delta: 9, factor: 0.5}, "
    "table: {_target_: CSVLogger, filename: log.csv}, "
    "kept: {_target_: ModelCheckpoint, filepath: 'epoch{epoch}.keras', monitor: loss, save_best_only: true}}",
    "trust=[my_parts]",
]


def test_callbacks_are_called_in_their_order_and_resume_with_their_state(tmp_path: Path) -> None:
    from my_parts import CALLED  # type: ignore[import-not-found]

    CALLED.clear()  # another test may have filled it
    options = ["model=mlp", "model.hidden=[4]", "data.limit=32", "fit.epochs=4", "checkpoint.keep_last=9", *CALLBACKS]
    train(tmp_path, *options, "run=a")
    assert CALLED[:3] == [("b", [0]), ("a", [0]), ("b", [0, 1])]
    files = {name: (tmp_path / "a" / name).read_text() for name in ("log.csv",)}
    assert (tmp_path / "a" / "epoch4.keras").is_file()
    whole = content(tmp_path / "a")
    rates = [record["learning_rate"] for record in records(tmp_path / "a")]
    assert rates[-1] < rates[0] / 3

    cut(tmp_path / "a", 8)
    CALLED.clear()
    train(tmp_path, *options, "run=a")
    assert [(mark, list(range(epoch + 1))) for epoch in (2, 3) for mark in ("b", "a")] == CALLED
    assert_same(content(tmp_path / "a"), whole)
    assert files == {name: (tmp_path / "a" / name).read_text() for name in files}


def test_a_dry_run_writes_nothing_and_calls_the_others(tmp_path: Path) -> None:
    train(tmp_path, "model=mlp", "data.limit=32", *CALLBACKS, "dry_run=true")
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("my_parts.py", "__pycache__")] == []


def test_a_callback_that_only_observes_may_change_and_others_only_if_it_is_meant(tmp_path: Path) -> None:
    def run(callbacks: str, *more: str) -> Any:
        return train(
            tmp_path, *SMALL, f"callbacks={callbacks}", "trust=[my_parts]", "schedule=constant", "run=a", *more
        )

    run("{own: {_target_: my_parts.Tells, mark: a}}", "fit.steps=1")
    stop = "stop: {_target_: EarlyStopping, monitor: loss}"
    run(f"{{own: {{_target_: my_parts.Tells, mark: a}}, {stop}}}", "fit.steps=2")
    with pytest.raises(NameplateError, match=r"callbacks.own.mark: \"a\" -> \"b\""):
        run(f"{{own: {{_target_: my_parts.Tells, mark: b}}, {stop}}}", "fit.steps=3")
    assert run(f"{{{stop}}}", "fit.steps=3", "resume_changed=[callbacks]").steps == 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ["callbacks={a: {_target_: my_parts.Scaled}}"],
            "callbacks.a: my_parts.Scaled returned Scaled; it must return",
        ),
        (["callbacks={a: {_target_: my_parts.Tells}}"], "my_parts.Tells(mark) cannot be called:\n  it needs 'mark'"),
        (
            ["callbacks={a: {_target_: EarlyStopping, monitor: val_los}}"],
            "callbacks.a.monitor: 'val_los' is not measured",
        ),
        (["callbacks={a: {_target_: ModelCheckpoint, filepath: x}}"], "callbacks.a: ModelCheckpoint: The filepath"),
        (["callbacks={a: {_target_: os.system, command: ls}}"], "'os.system' is not among what may be run"),
    ],
)
def test_callbacks_that_cannot_be_made_are_refused(options: list[str], says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        train(tmp_path, *SMALL, *options, "trust=[my_parts]", "run=a")
    assert says in str(error.value)
    assert not (tmp_path / "a").exists()


# ---- models from files ----------------------------------------------------------------------------------------------


THEIRS = """
import keras


@keras.saving.register_keras_serializable(package="their_layers")
class Doubles(keras.layers.Layer):
    def call(self, x):
        return 2.0 * x
"""


def saved(path: Path, *layers: keras.Layer, activation: str = "relu", logits: str = "label") -> keras.Model:
    image = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Dense(4, activation=activation, name="body")(keras.layers.Flatten(name="flat")(image))
    for layer in (*layers, keras.layers.Dropout(0.3, name="drop")):
        x = layer(x)
    model = keras.Model(image, keras.layers.Dense(10, name=logits)(x), name="mine")
    model.save(path)
    return model


def test_a_model_in_a_file_trains_from_its_weights_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    model = saved(tmp_path / "mine.keras")
    options = ["model=file", f"model.path={tmp_path / 'mine.keras'}", "data.limit=32", "checkpoint.every_steps=2"]
    options += ["checkpoint.keep_last=9", "optimizer.learning_rate=1e-12"]
    train(tmp_path, *options, "fit.steps=4", "run=a")
    whole = content(tmp_path / "a")
    np.testing.assert_allclose(whole["weights:body/kernel"], model.get_layer("body").kernel, atol=1e-9)
    cut(tmp_path / "a", 2)
    train(tmp_path, *options, "fit.steps=4", "run=a")
    assert_same(content(tmp_path / "a"), whole)

    from trainer.job.model import rebuild

    (tmp_path / "mine.keras").unlink()
    assert rebuild(str(tmp_path / "a")).model.name == "mine"  # from the checkpoint; the file is not opened
    for source in ("a", "a/checkpoints/step_00000002"):
        of_run = ["model=file", f"model.path={tmp_path / source}", "data.limit=16", "optimizer.learning_rate=1e-12"]
        assert train(tmp_path, *of_run, "fit.steps=1", "dry_run=true").steps == 1


def test_a_file_that_has_changed_is_refused_with_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "mine.keras"
    saved(path)
    options = ["model=file", f"model.path={path}", "data.limit=16", "run=a"]
    train(tmp_path, *options, "fit.steps=1")
    saved(path, activation="tanh")
    with pytest.raises(NameplateError, match=r'model.layers.body.activation: "relu" -> "tanh"'):
        train(tmp_path, *options, "fit.steps=2")


def test_classes_in_a_file_are_built_only_where_their_package_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "their_layers.py").write_text(THEIRS)
    saved(tmp_path / "mine.keras", import_module("their_layers").Doubles(name="double"))
    keras.saving.get_custom_objects().pop("their_layers>Doubles")
    del sys.modules["their_layers"]
    options = ["model=file", f"model.path={tmp_path / 'mine.keras'}", "data.limit=16", "fit.steps=1", "run=a"]
    for trust in ("trust=[]", "trust=[my_parts]"):
        with pytest.raises(ConfigError, match=r"Doubles(.|\n)*trust=\[PACKAGE\]"):
            train(tmp_path, *options, trust)
    assert "their_layers" not in sys.modules
    assert train(tmp_path, *options, "trust=[their_layers]").steps == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ["model.path=absent.keras"],
            "model.path: nothing at 'absent.keras'; give a .keras file",
        ),
        (["model.path=my_parts.py"], "model.path: "),
        (["fit.precision=mixed_bfloat16"], "compute in float32, not in mixed_bfloat16"),
        (["model._target_=my_parts.word"], "model._target_: 'my_parts.word' does not read model.path"),
        (["data=digit_pairs"], "'label' has 10 units"),
    ],
)
def test_files_that_cannot_be_trained_are_refused(
    options: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "mine.keras")
    with pytest.raises(NameplateError) as error:
        train(tmp_path, "model=file", "model.path=mine.keras", "run=a", *options)
    assert says in str(error.value)
    assert not (tmp_path / "a").exists()


def test_automatic_names_in_a_file_are_refused_or_repaired(tmp_path: Path) -> None:
    saved(tmp_path / "mine.keras", keras.layers.Dense(3))
    options = ["model=file", f"model.path={tmp_path / 'mine.keras'}", "data.limit=16", "fit.steps=1"]
    with pytest.raises(NameplateError, match="naming=repair"):
        train(tmp_path, *options, "run=a")
    assert train(tmp_path, *options, "naming=repair", "run=b").steps == 1
