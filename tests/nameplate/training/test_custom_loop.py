"""`nameplate.Run`: a loop of the user's own, exactly resumable."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import nameplate
from nameplate import checkpoint as store
from nameplate.errors import NameplateError, NotFiniteError, StoppedError
from nameplate.naming.policy import NamingError
from nameplate.training.config_diff import ConfigDiffError
from scripts.examples import gan
from tests.jobs import CONTEXT
from tests.nameplate.training.script import examples
from tests.trainer.running import assert_same, content

EVERY = nameplate.Checkpoint(every_steps=3, monitor="generator")
LOG = nameplate.Log(tensorboard=False, every_steps=2)


def network() -> tuple[keras.Model, keras.Optimizer]:
    keras.utils.set_random_seed(1)
    x = keras.Input((8,), name="x")
    model = keras.Model(x, keras.layers.Dense(3, "softmax", name="classes")(x), name="net")
    return model, keras.optimizers.Adam(1e-2)


def train(run: Path, *, epochs: int = 3, fail_at: int | None = None, **given: Any) -> tuple[nameplate.Run, keras.Model]:
    """Train 24 steps, eight an epoch; the recorded loss is of the model before the step."""
    import tensorflow as tf

    model, optimizer = network()
    entropy = keras.losses.SparseCategoricalCrossentropy()

    @tf.function
    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = entropy(y, model(x, training=True))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    options: dict[str, Any] = {"checkpoint": nameplate.Checkpoint(every_steps=3), "log": LOG, "verbose": 0} | given
    data: Any = options.pop("data", examples())
    batch: Any = options.pop("batch_size", 16)
    with nameplate.Run(run, model, optimizer, **options) as own:
        for x, y in own.epochs(data, epochs, batch_size=batch):
            if own.step == fail_at:
                raise RuntimeError("the user's program fails")
            own.record(loss=step(x, y))
    return own, model


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "whole"
    train(run)
    return run


@pytest.mark.parametrize("step", [2, 8, 13])
def test_a_loop_that_failed_goes_on_exactly(tmp_path: Path, whole: Path, step: int) -> None:
    with pytest.raises(RuntimeError):
        train(tmp_path / "a", fail_at=step)
    own, _ = train(tmp_path / "a")
    assert own.step == 24
    assert_same(content(tmp_path / "a"), content(whole))
    assert nameplate.Run.open(tmp_path / "a").metrics == nameplate.Run.open(whole).metrics
    assert own.history == nameplate.Run.open(whole).history


def test_its_batches_and_updates_are_those_of_the_same_loop_without_a_run(whole: Path) -> None:
    from nameplate.data.batches import shuffled

    model, optimizer = network()
    model.compile(optimizer, "sparse_categorical_crossentropy")
    x, y = examples()
    for epoch in range(3):
        order = np.concatenate([shuffled(np.arange(len(x)), epoch=epoch, seed=0, size=len(x)).numpy()])
        for first in range(0, len(x), 16):
            rows = order[first : first + 16]
            model.train_on_batch(x[rows], y[rows])
    saved = store.open(nameplate.Run.open(whole).latest).weights.load()
    np.testing.assert_allclose(saved["classes/kernel"], model.get_layer("classes").kernel.numpy(), rtol=1e-5, atol=1e-6)


def test_short_epochs_are_of_all_examples(tmp_path: Path) -> None:
    model, optimizer = network()
    numbers = np.arange(64)
    seen: set[int] = set()
    with nameplate.Run(tmp_path / "a", model, optimizer, log=LOG, verbose=0) as own:
        for batch, _ in own.epochs((numbers, numbers), 30, batch_size=4, steps_per_epoch=2):
            seen |= set(batch.numpy().tolist())
    assert own.step == 60
    assert len(seen) > 50


def test_a_finished_loop_runs_no_step(whole: Path) -> None:
    before = content(whole)
    own, model = train(whole, fail_at=24)
    assert own.step == 24
    assert_same(content(whole), before)
    np.testing.assert_array_equal(model.get_layer("classes").kernel.numpy(), before["weights:classes/kernel"])


def test_what_it_leaves_is_read_as_values(whole: Path) -> None:
    run = nameplate.Run.open(whole)
    assert list(run.checkpoints)[-1] == 24
    assert run.best in store.checkpoints(whole / "checkpoints")
    assert [record["step"] for record in run.metrics if record["kind"] == "epoch"] == [8, 16, 24]
    assert run.history["loss"][-1] == run.checkpoints[24]["loss"]
    assert json.loads(run.config)["call"] == "nameplate.Run"
    assert nameplate.load(whole).get_layer("classes") is not None
    with pytest.raises(NameplateError, match="whole"):
        nameplate.Run.open(whole.parent / "whol")


def _gan(run: Path, kill_at: int | None) -> None:
    if kill_at is not None:
        advance = nameplate.Run._advance

        def kill(own: Any, *arguments: Any) -> None:
            if own.step + 1 == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            advance(own, *arguments)

        nameplate.Run._advance = kill  # type: ignore[assignment,method-assign]
    gan.train(str(run), epochs=1, checkpoint=nameplate.Checkpoint(every_steps=4, monitor="generator"), verbose=0)


def test_a_gan_of_two_models_and_optimizers_is_killed_and_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    def run(name: str, kill_at: int | None = None) -> int:
        process = CONTEXT.Process(target=_gan, args=(tmp_path / name, kill_at))
        process.start()
        process.join()
        assert process.exitcode is not None
        return process.exitcode

    assert run("whole") == 0
    assert run("killed", 6) == -signal.SIGKILL
    assert run("killed", 15) == -signal.SIGKILL
    assert run("killed") == 0
    assert_same(content(tmp_path / "killed"), content(tmp_path / "whole"))
    latest = store.open(nameplate.Run.open(tmp_path / "whole").latest)
    assert {"generator/hidden/kernel", "critic/hidden/kernel"} <= set(latest.weights)
    assert "critic/hidden/kernel@momentum" in latest.optimizer
    assert {"variables/noise", "optimizer/generator/iteration"} <= set(latest.state)


def step_through(run: Path, act: Callable[[nameplate.Run], None]) -> None:
    """Call `act` in each step of a loop that trains nothing."""
    model, optimizer = network()
    with nameplate.Run(run, model, optimizer, log=LOG, verbose=0) as own:
        for _ in own.epochs(examples(), 3, batch_size=16):
            act(own)


def test_a_signal_saves_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def signalled(own: nameplate.Run) -> None:
        if own.step == 4:
            os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr("nameplate.training.script_run.in_notebook", lambda: True)  # else it would end this process
    with pytest.raises(StoppedError, match="SIGUSR1 after step 5"):
        step_through(tmp_path / "a", signalled)
    assert list(nameplate.Run.open(tmp_path / "a").checkpoints) == [5]


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"batch_size": 8}, "fit.global_batch"),
        ({"seed": 3}, "seed"),
        ({"settings": {"noise": 4}}, "settings.noise"),
        ({"data": (examples()[0] + 1, examples()[1])}, "data.content"),
    ],
)
def test_what_differs_is_refused_by_its_key(whole: Path, given: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigDiffError, match=re.escape(key)):
        train(whole, **given)


def test_a_loss_that_is_not_a_number_stops_before_it_is_saved(tmp_path: Path) -> None:
    with pytest.raises(NotFiniteError, match="loss is NaN"):
        step_through(tmp_path / "a", lambda own: own.record(loss=float("nan")))
    assert store.checkpoints(tmp_path / "a" / "checkpoints") == []


def test_wrong_arguments_are_refused_at_once(tmp_path: Path) -> None:
    model, optimizer = network()
    unbuilt = keras.Sequential([keras.layers.Dense(2, name="a")], name="unbuilt")
    with pytest.raises(NameplateError, match=r"a dictionary \{string: keras.Model\} is needed, not 'two': 5"):
        nameplate.Run(tmp_path / "a", {"one": model, "two": 5}, {"three": optimizer})  # type: ignore[dict-item]
    with pytest.raises(NameplateError, match="'unbuilt' is not built") as refused:
        nameplate.Run(tmp_path / "a", {"one": unbuilt, "two": model}, {"three": optimizer})
    assert "optimizers['three']: no model has this key; there are 'one', 'two'" in str(refused.value)
    with pytest.raises(NameplateError, match="path=None: a path is needed"):
        nameplate.Run(None, model, optimizer)  # type: ignore[arg-type]
    with (
        nameplate.Run(tmp_path / "b", model, optimizer, verbose=0, log=LOG) as own,
        pytest.raises(NameplateError, match=r"epochs=0: at least 1\nbatch_size=0: at least 1"),
    ):
        next(own.epochs(examples(), 0, batch_size=0))
    with pytest.raises(NameplateError, match=r"record\(loss=...\): an array of shape \(2,\)"):
        step_through(tmp_path / "d", lambda own: own.record(loss=np.ones(2)))
    automatic = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)], name="net")
    with pytest.raises(NamingError), nameplate.Run(tmp_path / "c", automatic, optimizer):
        pass
    assert not (tmp_path / "c").exists()
