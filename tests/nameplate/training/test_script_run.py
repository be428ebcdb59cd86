"""`nameplate.fit(run=...)`: the guarantees of a run in a user's own script."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import nameplate
from nameplate import checkpoint as store
from nameplate.errors import NameplateError, NotFiniteError
from nameplate.naming.policy import NamingError
from nameplate.section import ConfigError
from nameplate.training.config_diff import ConfigDiffError
from nameplate.training.script_run import ScriptRun
from nameplate.training.state import ResumeError
from tests.nameplate.training.script import CHECKPOINT, At, examples, in_process, network, train
from tests.trainer.running import assert_same, content
from trainer.job.model import rebuild


@pytest.fixture(autouse=True)
def _scope(strategy: Any) -> Any:
    with strategy.scope():
        yield


@pytest.fixture(scope="module")
def whole(strategy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that nothing happened to."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    with strategy.scope():
        train(run)
    return run


@pytest.mark.parametrize("which", ["", "latest", "checkpoints/best"])
def test_a_run_is_a_source_of_weights(whole: Path, which: str) -> None:
    best = nameplate.read(nameplate.load(whole, which=which if which == "latest" else "best"))
    model = network()
    nameplate.load_weights(model, whole / which)
    planned = nameplate.plan(whole / which, network())
    for taken in (model, nameplate.apply(planned, network())):
        values = nameplate.read(taken)
        assert_same(*({name: each[name] for name in each if name.startswith(KERNELS)} for each in (values, best)))


KERNELS = ("hidden/", "classes/")


class FailedError(Exception):
    """The user's program fails."""


def fail() -> None:
    raise FailedError


def weights(model: keras.Model) -> list[np.ndarray]:
    return [np.asarray(weight) for weight in model.get_weights()]


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_equal(one: keras.Model, other: keras.Model) -> None:
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_changes_no_number(tmp_path: Path) -> None:
    history, model = train(tmp_path / "a")
    plain, same = train(None)
    assert history.history == plain.history
    assert history.epoch == plain.epoch
    assert_equal(model, same)


@pytest.mark.parametrize("batch", [3, 6, 11, 20])
def test_a_script_that_failed_goes_on_exactly(tmp_path: Path, whole: Path, batch: int) -> None:
    with pytest.raises(FailedError):
        train(tmp_path / "a", At(batch, fail))
    train(tmp_path / "a", At(0, fail))
    assert_same(content(tmp_path / "a"), content(whole))


def test_a_longer_training_continues_a_shorter_one(tmp_path: Path, whole: Path) -> None:
    train(tmp_path / "a", epochs=2)
    history, _ = train(tmp_path / "a")
    assert history.epoch == [0, 1, 2, 3]
    assert_same(content(tmp_path / "a"), content(whole))


@pytest.mark.filterwarnings("default:.*Your input ran out of data")
def test_epochs_that_share_a_pass_resume_in_the_middle_of_it(tmp_path: Path) -> None:
    parts: dict[str, Any] = {"steps_per_epoch": 4, "epochs": 5}  # of 6 steps: 4, 2, 4, 2, 4
    ran_out = pytest.warns(UserWarning, match="Your input ran out of data")
    with ran_out:
        history, _ = train(tmp_path / "whole", **parts)
    assert [line["step"] for line in lines(tmp_path / "whole") if line["kind"] == "epoch"] == [4, 6, 10, 12, 16]
    for batch in (5, 4, 3):
        with pytest.raises(FailedError):
            train(tmp_path / "a", At(batch, fail), **parts)
    with ran_out:
        again, _ = train(tmp_path / "a", At(0, fail), **parts)
    assert again.history == history.history
    assert_same(content(tmp_path / "a"), content(tmp_path / "whole"))


def test_a_run_of_an_earlier_version_keeps_its_epochs_of_orders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: dict[str, Any] = {"steps_per_epoch": 4, "epochs": 3}
    with monkeypatch.context() as earlier:
        earlier.setattr(ScriptRun, "has_own_epochs", lambda self: True)
        train(tmp_path / "whole", **parts)
        with pytest.raises(FailedError):
            train(tmp_path / "a", At(6, fail), **parts)
    assert "epochs_continue" not in (tmp_path / "a" / "config.yaml").read_text()
    train(tmp_path / "a", At(0, fail), **parts)
    assert_same(content(tmp_path / "a"), content(tmp_path / "whole"))


def test_killed_and_started_again_it_ends_as_if_nothing_had_happened(tmp_path: Path, whole: Path) -> None:
    run = tmp_path / "a"
    for batch in (3, 5, 9):
        assert in_process(run, kill_at=batch) == -signal.SIGKILL
    assert in_process(run) == 0
    assert_same(content(run), content(whole))


def test_a_signal_saves_and_ends_the_script_with_its_code(tmp_path: Path, whole: Path) -> None:
    run = tmp_path / "a"
    assert in_process(run, kill_at=9, signal=signal.SIGTERM) == 143
    assert json.loads((run / "requeue.json").read_text())["signal"] == "SIGTERM"
    said = Path(f"{run}.said").read_text()
    assert "stopped by SIGTERM after step 9" in said
    assert "Traceback" not in said
    assert in_process(run) == 0
    assert not (run / "requeue.json").exists()
    assert_same(content(run), content(whole))


def test_a_finished_run_leaves_the_model_as_its_end_did(tmp_path: Path) -> None:
    def once() -> tuple[Any, keras.Model]:
        stop = keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True, min_delta=10.0)
        return train(tmp_path / "a", stop, verbose=0)

    history, model = once()
    assert len(history.epoch) == 2  # it stopped early
    again, same = once()
    assert again.history == history.history
    assert_equal(model, same)


@pytest.mark.parametrize("restores", [True, False])
def test_an_early_stop_says_why_and_which_weights_remain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], restores: bool
) -> None:
    stop = keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=restores, min_delta=10.0)
    history, _ = train(tmp_path / "a", stop, verbose=1)
    said = capsys.readouterr().out
    best = history.history["val_loss"][0]
    assert f"stopped early after epoch 2: val_loss has not improved on {best:.4f} of epoch 1 (patience 1)\n" in said
    kept = "1\n" if restores else "2; with restore_best_weights=True it has those of epoch 1\n"
    assert f"  the model has the weights of epoch {kept}" in said
    assert "data: training 96, validation 24 examples\n  y: 41 of 0, 27 of 1, 28 of 2\n" in said


def test_a_run_that_is_refused_shows_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path / "a", epochs=1, verbose=1)
    assert "layers of net" in capsys.readouterr().out
    with pytest.raises(ConfigDiffError):
        train(tmp_path / "a", model=network(rate=0.5), verbose=1)
    assert "layers of net" not in capsys.readouterr().out


def test_moving_averages_are_what_is_saved_and_what_remains(tmp_path: Path) -> None:
    def model() -> keras.Model:
        return network(use_ema=True, ema_momentum=0.9)

    _, first = train(tmp_path / "a", model=model())
    with pytest.raises(FailedError):
        train(tmp_path / "b", At(9, fail), model=model())
    _, resumed = train(tmp_path / "b", model=model())
    assert_equal(first, resumed)
    saved = store.open(store.checkpoints(tmp_path / "b" / "checkpoints")[-1]).weights.load()
    np.testing.assert_array_equal(saved["classes/kernel"], resumed.get_layer("classes").kernel.numpy())


def test_the_cell_of_a_notebook_can_be_run_twice(tmp_path: Path) -> None:
    model = network()
    history, _ = train(tmp_path / "a", model=model, epochs=2)
    assert float(np.asarray(model.optimizer.learning_rate)) < 1e-2  # the plateau has changed it
    again, _ = train(tmp_path / "a", model=model, epochs=2)
    assert again.history == history.history


def test_a_rate_that_the_user_sets_between_two_cells_is_a_change(tmp_path: Path) -> None:
    model = network()
    train(tmp_path / "a", model=model, epochs=1)
    model.optimizer.learning_rate = 0.125
    with pytest.raises(ConfigDiffError, match=r"optimizer.learning_rate: 0.01 -> 0.125"):
        train(tmp_path / "a", model=model, epochs=2)


def test_an_initial_epoch_is_refused_beside_a_run(tmp_path: Path) -> None:
    with pytest.raises(NameplateError, match="initial_epoch=2 beside run="):
        train(tmp_path / "a", initial_epoch=2)
    assert not (tmp_path / "a").exists()


def test_the_directory_of_a_configured_run_is_refused(tmp_path: Path, begun: Path) -> None:
    shutil.copytree(begun, tmp_path / "a")
    latest = store.checkpoints(tmp_path / "a" / "checkpoints")[-1]
    with store.open(latest) as checkpoint:
        held = checkpoint.groups()
        snapshot = store.Snapshot(
            step=checkpoint.step + 1,
            epoch=0,
            position=0,
            weights=held["weights"].load(),
            optimizer=held["optimizer"].load(),
            state=held["state"].load(),
            metrics={},
            model=checkpoint.model,
            config="seed: 0\n",
            about=checkpoint.manifest.about,
            classes={},
        )
    store.save(tmp_path / "a" / "checkpoints", snapshot)
    with pytest.raises(NameplateError, match="is not of a script"):
        train(tmp_path / "a")


def test_what_a_run_writes_has_names(tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = store.open(store.checkpoints(whole / "checkpoints")[-1])
    assert "hidden/kernel" in checkpoint.weights
    assert "hidden/kernel@momentum" in checkpoint.optimizer
    assert store.resolve(whole / "checkpoints", "best") is not None
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "epoch"] == [6, 12, 18, 24]
    train(tmp_path / "a", verbose=1, epochs=1)
    said = capsys.readouterr().out
    assert "epoch 1/1  step 6" in said
    assert f"done: 6 steps in {tmp_path / 'a'}, best val_accuracy" in said


def test_names_are_checked_before_the_first_step(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)], name="net")
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = weights(model)
    with pytest.raises(NamingError, match=r"nameplate.enforce\(model, 'repair'\)"):
        nameplate.fit(model, *examples(), run=tmp_path / "a")
    assert not (tmp_path / "a").exists()
    for a, b in zip(before, weights(model), strict=True):
        np.testing.assert_array_equal(a, b)
    nameplate.fit(model, *examples(), run=tmp_path / "a", naming="off", log=nameplate.Log(tensorboard=False))
    assert (tmp_path / "a" / "checkpoints").is_dir()


def _changed(what: str) -> dict[str, Any]:
    x, y = examples()
    compiled = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}
    changes: dict[str, Any] = {
        "fit.global_batch": {"batch_size": 8},
        "fit.shuffle": {"shuffle": False},
        "fit.class_weight": {"class_weight": {0: 2.0}},
        "seed": {"seed": 5},
        "optimizer.learning_rate": {"model": network(rate=1e-3)},
        "data.content": {"data": (x + 1, y)},
        "data.examples": {"data": (x[:100], y[:100])},
        "model.hidden.activation": {"model": network(activation="tanh")},
    }
    if what == "optimizer":
        model = network()
        model.compile("sgd", **compiled)
        return {"model": model}
    if what == "objective.loss_weights":
        model = network()
        model.compile(keras.optimizers.Adam(1e-2), loss_weights=[2.0], **compiled)
        return {"model": model}
    return changes[what]


CHANGES = ["fit.global_batch", "fit.shuffle", "fit.class_weight", "seed", "optimizer.learning_rate", "data.content"]
CHANGES += ["data.examples", "model.hidden.activation", "optimizer", "objective.loss_weights"]


@pytest.fixture(scope="module")
def begun(strategy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of one epoch."""
    run = tmp_path_factory.mktemp("runs") / "begun"
    with strategy.scope():
        train(run, epochs=1)
    return run


@pytest.mark.parametrize("what", CHANGES)
def test_what_differs_from_the_last_start_is_refused_by_its_key(begun: Path, what: str) -> None:
    given = _changed(what)
    model, data = given.pop("model", None) or network(), given.pop("data", examples())
    before = content(begun)
    with pytest.raises(ConfigDiffError, match=rf"  {re.escape(what)}: .* -> .*") as refused:
        nameplate.fit(model, *data, run=begun, **({"batch_size": 16, "validation_split": 0.2, "epochs": 2} | given))
    assert "resume_changed=[" in str(refused.value)
    assert_same(content(begun), before)


def test_a_change_that_is_meant_takes_effect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path / "a", epochs=1)
    _, model = train(tmp_path / "a", model=network(rate=0.5), epochs=2, resume_changed=["optimizer"])
    assert "optimizer.learning_rate: 0.01" in capsys.readouterr().out
    assert float(np.asarray(model.optimizer.learning_rate)) in (0.5, 0.25)


def test_a_renamed_layer_is_refused_with_the_rename_that_bridges_it(begun: Path) -> None:
    with pytest.raises(ResumeError, match=r"ckpt rename .*hidden.*=.*inner"):
        train(begun, model=network(hidden="inner"))


def test_a_run_that_another_process_trains_in_is_refused(begun: Path) -> None:
    with store.RunLock(begun), pytest.raises(store.LockedError):
        train(begun, epochs=2)


def test_resume_false_refuses_a_run_that_has_checkpoints(begun: Path) -> None:
    with pytest.raises(NameplateError, match="has checkpoints up to step_00000006"):
        train(begun, resume=False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"run": 5}, r"run=5: a path or None is needed, not an int"),
        ({"run": ""}, r"run='': the path of a directory"),
        ({"checkpoint": "often"}, r"checkpoint='often': a nameplate.Checkpoint or None is needed"),
        ({"log": {"every_steps": 1}}, r"log=\{'every_steps': 1\}: a nameplate.Log or None is needed"),
        ({"resume_changed": "optimizer"}, r"resume_changed='optimizer': a list, e.g. \['optimizer'\]"),
        ({"checkpoint": nameplate.Checkpoint(keep_last=0)}, r"checkpoint.keep_last: 0 is too small"),
        ({"checkpoint": nameplate.Checkpoint(monitor="val_acuracy")}, r"'val_acuracy' is not measured"),
        ({"naming": "strictly"}, r"strictly"),
        ({"checkpoint": nameplate.Checkpoint(export_keras="best")}, r"checkpoint.export_keras: .*nameplate.save"),  # type: ignore[arg-type]
        ({"max_rollbacks": -1}, r"max_rollbacks=-1: a whole number, at least 0"),
    ],
)
def test_wrong_arguments_are_refused_in_words(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    run = given.pop("run", tmp_path / "a")
    with pytest.raises((NameplateError, ConfigError), match=message):
        train(run, **given)
    assert not (tmp_path / "a").exists()


def test_a_nan_goes_back_to_the_last_good_checkpoint_as_often_as_allowed(tmp_path: Path) -> None:
    x, y = examples()
    x[7] = np.nan
    given: dict[str, Any] = {"run": tmp_path / "a", "epochs": 2, "batch_size": 16, "checkpoint": CHECKPOINT}
    with pytest.raises(NotFiniteError, match=r"the last good checkpoint is.*run=\.\.\., max_rollbacks=3"):
        nameplate.fit(network(), x, y, **given)
    history = nameplate.fit(network(), x, y, max_rollbacks=2, **given)
    assert np.isfinite(history.history["loss"][-1])


def test_a_run_loads_as_a_model(whole: Path) -> None:
    x, _ = examples()
    steps = store.checkpoints(whole / "checkpoints")
    chosen: dict[str | int, Path | None] = {"latest": steps[-1], 24: steps[-1]}
    chosen["best"] = store.resolve(whole / "checkpoints", "best")
    for which, path in chosen.items():
        model = nameplate.load(whole, which=which)
        assert path is not None
        saved = store.open(path).weights.load()
        held = nameplate.read(model)
        assert_same({name: held[name] for name in saved}, saved)
        assert model.predict(x, verbose=0).shape == (len(x), 3)
    assert nameplate.load(whole / "best").name == "net"


def test_a_damaged_best_is_skipped_with_a_warning(tmp_path: Path, whole: Path) -> None:
    shutil.copytree(whole, tmp_path / "a")
    best = store.resolve(tmp_path / "a" / "checkpoints", "best")
    assert best is not None
    weights = best / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"oops")
    with pytest.warns(UserWarning, match=f"{best.name} is damaged and skipped"):
        model = nameplate.load(tmp_path / "a")
    assert not np.array_equal(nameplate.read(model)["hidden/kernel"], np.zeros(1))


@pytest.mark.parametrize(
    ("which", "message"),
    [
        (5, "has no checkpoint of step 5; it has 18, 20, 24"),
        ("newest", "which='newest': 'best', 'latest', or the number of a step"),
        (True, "which=True"),
    ],
)
def test_a_checkpoint_that_a_run_does_not_have_is_refused(whole: Path, which: Any, message: str) -> None:
    with pytest.raises(NameplateError, match=message):
        nameplate.load(whole, which=which)


def test_a_path_that_is_not_there_is_answered_with_the_nearest(whole: Path) -> None:
    with pytest.raises(NameplateError, match="whole"):
        nameplate.load(whole.parent / "whle")


def test_the_commands_read_a_run_of_a_script(whole: Path) -> None:
    rebuilt = rebuild(str(whole))
    assert rebuilt.step == 24
    assert [*nameplate.layers(rebuilt.model)] == ["x", "hidden", "drop", "classes"]


class Forgetful(keras.layers.Layer):
    """A layer whose argument Keras cannot derive a configuration of."""

    def __init__(self, function: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function = function

    def call(self, x: Any) -> Any:
        return x


class Failing(keras.layers.Layer):
    """A layer whose configuration cannot be made."""

    def call(self, x: Any) -> Any:
        return x

    def get_config(self) -> dict[str, Any]:
        raise KeyError("rate")


class Unset(keras.Model):
    """A model that has no get_config."""

    def __init__(self, rate: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = rate
        self.classes = keras.layers.Dense(3, "softmax", name="classes")

    def call(self, x: Any) -> Any:
        return self.classes(x * self.rate)


def _with(layer: keras.layers.Layer) -> keras.Model:
    x = keras.Input((8,), name="x")
    model = keras.Model(x, keras.layers.Dense(3, "softmax", name="classes")(layer(x)), name="net")
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            lambda: Forgetful(np.sqrt, name="odd"),
            r"odd \(Forgetful\): has no get_config; add to Forgetful: def get_config",
        ),
        (lambda: Failing(name="odd"), r"odd \(Failing\): get_config fails: KeyError\('rate'\); "),
    ],
    ids=["none", "failing"],
)
def test_a_model_that_cannot_be_saved_whole_is_found_before_training(
    tmp_path: Path, layer: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model, steps = _with(layer()), list[int]()
    counts = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: steps.append(batch))
    with pytest.raises(NameplateError, match=message):
        nameplate.fit(model, *examples(), callbacks=[keras.callbacks.ModelCheckpoint(tmp_path / "a.keras"), counts])
    assert steps == []
    with pytest.raises(NameplateError, match=message):
        nameplate.save(model, tmp_path / "a.keras")
    nameplate.fit(model, *examples(), run=tmp_path / "a", log=nameplate.Log(tensorboard=False))
    assert re.search(message, capsys.readouterr().out)
    latest = store.open(nameplate.Run.open(tmp_path / "a").latest)
    assert "classes/kernel" in latest.weights


def test_the_arguments_of_a_subclass_are_kept(tmp_path: Path) -> None:
    model = Unset(rate=0.5, name="net")
    model.compile("sgd", "sparse_categorical_crossentropy")
    nameplate.fit(model, *examples(), run=tmp_path / "a", log=nameplate.Log(tensorboard=False))
    loaded = nameplate.load(tmp_path / "a", custom_objects={"Unset": Unset})
    assert loaded.rate == 0.5
