"""A whole run, in this process: what it trains, saves, resumes and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from nameplate import checkpoint as store
from nameplate.engine.errors import device_errors
from nameplate.errors import NameplateError
from nameplate.naming.policy import NamingError
from nameplate.section import ConfigError
from tests.long import cases
from tests.trainer.running import about, assert_same, content, records, train

pytestmark = pytest.mark.usefixtures("strategy")

ALONE = ["strategy=single"]  # where the number of replicas does not matter

SMALL: dict[str, list[str]] = {
    "mlp": ["model=mlp", "model.dropout=0.2"],
    "convnet": ["model=convnet", "model.width=8"],
    "resnet": ["model=resnet", "model.width=8"],
    "vit": ["model=vit", "model.layers=1", "model.width=16", "model.dropout=0.1"],
    "two_tower": ["model=two_tower", "model.width=4", "data.pairs=1"],
    "subclassed": ["model=subclassed", "model.layers=1", "model.dropout=0.1"],
    "applications": [
        "model=applications",
        "model.name=MobileNet",
        "model.arguments={alpha: 0.25}",
        "data=synthetic",
        "data.size=64",
    ],
}


@pytest.mark.parametrize("model", cases(SMALL, short=["two_tower", "subclassed"]))
def test_every_architecture_trains_saves_and_resumes_to_the_same_bits(tmp_path: Path, model: str) -> None:
    options = [*SMALL[model], *ALONE, "run=one", "checkpoint.every_steps=2", "fit.steps=4"]
    train(tmp_path, *options)
    whole, told = content(tmp_path / "one"), about(tmp_path / "one")["history"]
    shutil.rmtree(store.checkpoints(tmp_path / "one" / "checkpoints")[-1])
    report = train(tmp_path, *options)
    assert report.steps == 4
    assert_same(content(tmp_path / "one"), whole)
    assert about(tmp_path / "one")["history"] == told


RANDOM = ["model.dropout=0.3", "data.augment=[shift,flip]", "data.limit=52", "fit.epochs=3"]
STATEFUL = ["model.width=8", *RANDOM]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param([], marks=pytest.mark.long),
        pytest.param(["data.resident=never"], marks=pytest.mark.long),
        ["model=mlp", "optimizer=sgd", "fit.precision=mixed_float16"],  # convolutions in float16 take minutes on a CPU
        [
            *("checkpoint.async_save=true", "schedule=cosine", "schedule.warmup_steps=3"),
            "data.augment=[flip, {_target_: RandomErasing, factor: 0.5}, random_gaussian_blur]",
        ],
        ["fit.early_stopping.monitor=val_loss", "fit.early_stopping.patience=9", "fit.steps_per_loop=3"],
        pytest.param(
            ["strategy.sync_batch_norm=false", "optimizer.ema_momentum=0.9", "fit.precision=mixed_bfloat16"],
            marks=pytest.mark.long,
        ),
    ],
    ids=lambda options: " ".join(options) or "defaults",
)
def test_a_run_cut_in_mid_epoch_ends_as_if_it_had_not_been(tmp_path: Path, options: list[str]) -> None:
    """Seven steps an epoch, the last of them smaller; cut at step 11, which is in the second epoch."""
    stateful = RANDOM if "model=mlp" in options else STATEFUL
    saving = [*stateful, *options, "log.every_steps=2", "checkpoint.keep_last=99", "run=cut"]
    train(tmp_path, *saving, "checkpoint.every_steps=11")
    whole, told = content(tmp_path / "cut"), about(tmp_path / "cut")
    lines = records(tmp_path / "cut")
    for later in store.checkpoints(tmp_path / "cut" / "checkpoints"):
        if int(later.name.removeprefix("step_")) > 11:
            shutil.rmtree(later)
    train(tmp_path, *saving)
    assert_same(content(tmp_path / "cut"), whole)
    assert about(tmp_path / "cut")["history"] == told["history"]
    assert about(tmp_path / "cut")["best"] == told["best"]
    assert records(tmp_path / "cut") == lines


def test_neither_checkpoints_nor_records_nor_the_loop_change_what_is_computed(tmp_path: Path) -> None:
    options = ["model=mlp", *RANDOM]
    train(tmp_path, *options, "run=a")
    train(tmp_path, *options, "run=b", "checkpoint.every_steps=1", "log.every_steps=3", "fit.steps_per_loop=1")
    assert_same(content(tmp_path / "a"), content(tmp_path / "b"))


def test_held_in_memory_or_through_the_pipeline_the_numbers_are_the_same(tmp_path: Path) -> None:
    train(tmp_path, *STATEFUL, "run=a", "data.resident=always")
    train(tmp_path, *STATEFUL, "run=b", "data.resident=never")
    assert_same(content(tmp_path / "a"), content(tmp_path / "b"))


def test_a_finished_run_is_not_trained_again_and_a_longer_plan_goes_on(tmp_path: Path) -> None:
    train(tmp_path, "model=mlp", *ALONE, "run=a", "fit.steps=3")
    before = content(tmp_path / "a")
    assert train(tmp_path, "model=mlp", *ALONE, "run=a", "fit.steps=3").steps == 3
    assert_same(content(tmp_path / "a"), before)
    assert train(tmp_path, "model=mlp", *ALONE, "run=a", "fit.steps=5").steps == 5


def test_a_run_holds_what_its_directory_promises(tmp_path: Path) -> None:
    report = train(
        tmp_path, "model=mlp", "run=a", "fit.epochs=2", "data.limit=24", "log.tensorboard=true", "log.every_steps=2"
    )
    home = tmp_path / "a"
    assert report.directory == home
    assert {path.name for path in home.iterdir()} == {
        ".lock",
        "checkpoints",
        "config.yaml",
        "metrics.jsonl",
        "tensorboard",
    }
    assert [line["step"] for line in records(home)] == [2, 3, 4, 6]
    assert [line["kind"] for line in records(home)] == ["train", "epoch", "train", "epoch"]
    assert "val_accuracy" in records(home)[-1]
    with store.open(store.resolve(home / "checkpoints", "latest") or Path()) as checkpoint:
        assert set(checkpoint.weights) == {
            f"{layer}/{part}" for layer in ("hidden1", "hidden2", "label") for part in ("kernel", "bias")
        }
        assert "label/kernel@velocity" in checkpoint.optimizer
        assert json.loads(checkpoint.model)["class_name"] == "Functional"
        assert "global_batch: 8" in checkpoint.config


def test_tensorboard_has_scalars_histograms_by_name_and_the_run_in_words(tmp_path: Path) -> None:
    options = ["model=mlp", *ALONE, "run=a", "data.limit=24", "log.tensorboard=true", "log.every_steps=1"]
    train(tmp_path, *options, "fit.epochs=1")
    train(tmp_path, *options, "fit.epochs=2")
    steps, tags = _events(tmp_path / "a" / "tensorboard" / "train")
    assert {"step/loss", "step/learning_rate", "step/examples_per_second", "hidden1/kernel", "config", "layers"} <= tags
    assert steps == [1, 2, 4, 5]  # goes on over the resume; steps 3 and 6 end an epoch
    _, validation = _events(tmp_path / "a" / "tensorboard" / "validation")
    assert {"epoch/loss", "epoch/accuracy"} <= validation


def _events(directory: Path) -> tuple[list[int], set[str]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tags: set[str] = set()
    steps: list[int] = []
    for path in sorted(directory.glob("events*")):
        accumulator = EventAccumulator(str(path))
        accumulator.Reload()
        tags |= set(accumulator.Tags()["tensors"])
        if "step/loss" in accumulator.Tags()["tensors"]:
            steps += [event.step for event in accumulator.Tensors("step/loss")]
    return steps, tags


def test_early_stopping_ends_the_run_for_good_with_its_best_weights(tmp_path: Path) -> None:
    options = ["model=mlp", *ALONE, "run=a", "data.limit=24", "fit.epochs=40", "optimizer.learning_rate=1.0"]
    options += ["fit.early_stopping.monitor=val_loss", "fit.early_stopping.patience=1"]
    report = train(tmp_path, *options)
    assert report.steps < 120
    before = content(tmp_path / "a")
    assert train(tmp_path, *options).steps == report.steps
    assert_same(content(tmp_path / "a"), before)


def test_the_best_value_outlives_a_restart(tmp_path: Path) -> None:
    """A worse epoch after a resume must not take the place of the best (keras#17012)."""
    options = ["model=mlp", *ALONE, "run=a", "data.limit=64", "checkpoint.keep_last=1", "optimizer.learning_rate=0.3"]
    for epochs in range(1, 7):
        report = train(tmp_path, *options, f"fit.epochs={epochs}")
        assert report.best == max(report.history["val_accuracy"])
        best = store.resolve(tmp_path / "a" / "checkpoints", "best")
        assert best is not None
        with store.open(best) as checkpoint:
            assert checkpoint.manifest.metrics["val_accuracy"] == report.best
    series = report.history["val_accuracy"]
    assert any(later < max(series[: place + 1]) for place, later in enumerate(series)), "no epoch was worse: no test"


def test_weights_come_from_another_run_by_name(tmp_path: Path) -> None:
    train(tmp_path, "model=mlp", *ALONE, "run=a", "fit.steps=3")
    taken = ["init=checkpoint", f"init.path={tmp_path / 'a'}"]
    train(
        tmp_path,
        "model=mlp",
        *ALONE,
        "run=whole",
        "fit.steps=1",
        "optimizer=sgd",
        "optimizer.learning_rate=1e-30",
        *taken,
    )
    _same_weights(tmp_path, "whole", ["hidden1/kernel", "label/kernel"])
    options = [*taken, "init.only=[hidden*]", "seed=7", "optimizer=sgd", "optimizer.learning_rate=1e-30"]
    train(tmp_path, "model=mlp", *ALONE, "run=part", "fit.steps=1", *options)
    _same_weights(tmp_path, "part", ["hidden1/kernel"])
    own = content(tmp_path / "part")["weights:label/kernel"]
    assert not np.array_equal(own, content(tmp_path / "a")["weights:label/kernel"])
    assert about(tmp_path / "part")["origins"].keys() == {
        "hidden1/kernel",
        "hidden1/bias",
        "hidden2/kernel",
        "hidden2/bias",
    }


def _same_weights(runs: Path, run: str, names: list[str]) -> None:
    given, taken = content(runs / "a"), content(runs / run)
    for name in names:
        np.testing.assert_array_equal(given[f"weights:{name}"], taken[f"weights:{name}"])


def test_a_callable_of_the_users_own_builds_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "user_nets.py").write_text(
        "import keras\n"
        "def build(input_shape, classes, width=4):\n"
        "    image = keras.Input(input_shape, name='image')\n"
        "    x = keras.layers.Flatten(name='flat')(image)\n"
        "    x = keras.layers.Dense(width, name='body')(x)\n"
        "    return keras.Model(image, keras.layers.Dense(classes, name='label')(x), name='mine')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    train(tmp_path, "model._target_=user_nets.build", "trust=[user_nets]", *ALONE, "run=a", "fit.steps=1")
    assert content(tmp_path / "a")["weights:body/kernel"].shape == (64, 64)  # the default model's width, asked for
    custom = ["model=custom", "model._target_=user_nets.build", "model.arguments.width=5", "trust=[user_nets]"]
    train(tmp_path, *custom, *ALONE, "run=b", "fit.steps=1")
    assert content(tmp_path / "b")["weights:body/kernel"].shape == (64, 5)
    with pytest.raises(NameplateError, match=r"trust=\[user_nets\]"):
        train(tmp_path, *custom[:-1], "run=c")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("made", ["keras.Sequential(layers, name='narrow')", "Narrow(layers)"])
def test_a_model_with_fewer_units_than_classes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str
) -> None:
    module = f"narrow_{len(made)}"
    (tmp_path / f"{module}.py").write_text(
        "import keras\n"
        "class Narrow(keras.Model):\n"
        "    def __init__(self, layers):\n"
        "        super().__init__(name='narrow')\n"
        "        self.parts = layers\n"
        "    def call(self, x):\n"
        "        for part in self.parts:\n"
        "            x = part(x)\n"
        "        return x\n"
        "def build():\n"
        "    layers = [keras.layers.Flatten(name='flat'), keras.layers.Dense(3, name='label')]\n"
        f"    return {made}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="has 3 units, and the target 'label' has 10 classes"):
        train(tmp_path, "model=custom", f"model._target_={module}.build", f"trust=[{module}]", "run=a")
    assert not (tmp_path / "a").exists()


def test_a_label_beyond_the_units_is_told_in_words() -> None:
    with pytest.raises(NameplateError, match="the label 4, and the model's output has 3 units"), device_errors():
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=[1, 4], logits=tf.zeros((2, 3)))


def test_a_dry_run_leaves_nothing_behind(tmp_path: Path) -> None:
    report = train(tmp_path, "model=mlp", "dry_run=true", "run=a")
    assert report.steps == 1
    assert report.directory is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["checkpoint.monitor=val_acuracy"], "not measured. Did you mean 'val_accuracy'"),
        (["fit.early_stopping.monitor=loss_val"], "fit.early_stopping.monitor: 'loss_val' is not measured"),
        (["objective.output_metrics={lable:[accuracy]}"], "no output 'lable'. Did you mean 'label'"),
        (["objective=regression"], "objective"),
        (["objective.class_weights={3: 2, 99: 2}"], "class 99 does not exist; 'label' has 10, numbered 0 to 9"),
        (["strategy=mirrored"], "this machine has no GPU"),
        (["strategy.gpus=[0,2]"], "GPU 0, 2"),
        (["model=two_tower", "data=digits"], "digit_pairs"),
    ],
)
def test_what_cannot_train_is_refused_and_leaves_nothing(tmp_path: Path, overrides: list[str], says: str) -> None:
    with pytest.raises(NameplateError) as error:
        train(tmp_path, "model=mlp", "run=a", *overrides)
    assert says in str(error.value)
    assert not (tmp_path / "a").exists()


def test_automatic_names_are_refused_before_compile(tmp_path: Path) -> None:
    with pytest.raises(NamingError) as error:
        train(tmp_path, "model=applications", "model.name=MobileNetV3Small", "data=synthetic", "data.size=32", "run=a")
    assert len(error.value.violations) > 10
    assert "naming=repair" in str(error.value)


def test_a_run_with_checkpoints_is_not_touched_without_resume(tmp_path: Path) -> None:
    train(tmp_path, "model=mlp", *ALONE, "run=a", "fit.steps=1")
    before = content(tmp_path / "a")
    with pytest.raises(NameplateError, match="resume=false"):
        train(tmp_path, "model=mlp", *ALONE, "run=a", "fit.steps=2", "resume=false")
    assert_same(content(tmp_path / "a"), before)


def test_another_model_cannot_resume_a_run(tmp_path: Path) -> None:
    train(tmp_path, "model=mlp", *ALONE, "run=a", "fit.steps=1")
    with pytest.raises(NameplateError) as error:
        train(tmp_path, "model=mlp", *ALONE, "model.hidden=[128]", "run=a", "fit.steps=2")
    assert "hidden2/kernel: only in the checkpoint" in str(error.value)
    assert "label/kernel: the model has (128, 10) float32, the checkpoint (64, 10) float32" in str(error.value)


def test_a_damaged_checkpoint_is_passed_over_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["model=mlp", *ALONE, "run=a", "fit.steps=4", "checkpoint.every_steps=2"]
    train(tmp_path, *options)
    whole = content(tmp_path / "a")
    last = store.checkpoints(tmp_path / "a" / "checkpoints")[-1]
    weights = last / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    capsys.readouterr()
    train(tmp_path, *options)
    assert "step_00000004 is damaged and skipped" in capsys.readouterr().out
    assert_same(content(tmp_path / "a"), whole)


def test_a_loss_that_is_not_finite_stops_the_run_at_its_step(tmp_path: Path) -> None:
    from nameplate.errors import NotFiniteError

    options = ["model=mlp", "run=a", "optimizer=sgd", "optimizer.learning_rate=1e30", "fit.epochs=1"]
    with pytest.raises(NotFiniteError) as error:
        train(tmp_path, *options, "checkpoint.every_steps=1")
    step = error.value.step
    assert step in (2, 3)
    saved = store.checkpoints(tmp_path / "a" / "checkpoints")
    assert all(int(path.name.removeprefix("step_")) < step for path in saved)


def test_every_example_of_an_uneven_evaluation_counts_once(tmp_path: Path) -> None:
    """360 held out, 7 of them a step: the last step has 3 examples."""
    report = train(tmp_path, "model=mlp", "run=a", "fit.steps=2", "fit.validation_batch=14", "data.validation=0.2")
    accuracy = report.values["val_accuracy"] * 360
    assert accuracy == pytest.approx(round(accuracy), abs=1e-3)


def test_gradients_of_a_run_do_not_depend_on_tensorflows_global_seed(tmp_path: Path) -> None:
    tf.random.set_seed(1)
    train(tmp_path, *STATEFUL, "run=a", "fit.steps=2")
    tf.random.set_seed(2)
    train(tmp_path, *STATEFUL, "run=b", "fit.steps=2")
    assert_same(content(tmp_path / "a"), content(tmp_path / "b"))
