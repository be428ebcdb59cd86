"""What a resume brings back, what may have changed meanwhile, and what can never go on."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from nameplate import checkpoint as store
from nameplate.engine.compile import prepare
from nameplate.engine.optimizer_state import slots
from nameplate.errors import NameplateError
from nameplate.training.config_diff import ConfigDiffError
from nameplate.training.state import ResumeError, train_state
from tests.long import cases
from tests.nets import CUSTOM, write_data, write_nets
from tests.trainer.running import about, assert_same, content, records, train
from trainer.cli.ckpt import main as ckpt

pytestmark = pytest.mark.usefixtures("strategy")

RUN = ["model=mlp", "run=a", "data.limit=40", "fit.steps=7", "log.every_steps=1"]  # five steps an epoch
ALONE = [*RUN, "strategy=single"]  # where the number of replicas does not matter


def cut(run: Path, step: int) -> None:
    """Take the run back to a step, as if the process had been killed after it."""
    for path in store.checkpoints(run / "checkpoints"):
        if int(path.name.removeprefix("step_")) > step:
            shutil.rmtree(path)


def test_a_changed_learning_rate_is_refused_and_where_it_is_meant_it_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, *ALONE, "fit.steps=4")
    before = content(tmp_path / "a")
    with pytest.raises(ConfigDiffError, match=r"optimizer.learning_rate: 0.001 -> 0.25"):
        train(tmp_path, *ALONE, "optimizer.learning_rate=0.25")
    assert_same(content(tmp_path / "a"), before)
    capsys.readouterr()
    train(tmp_path, *ALONE, "optimizer.learning_rate=0.25", "resume_changed=[optimizer.learning_rate]")
    assert "optimizer.learning_rate: 0.001 -> 0.25" in capsys.readouterr().out
    assert content(tmp_path / "a")["state:optimizer/learning_rate"] == np.float32(0.25)
    assert {line["step"]: line["learning_rate"] for line in records(tmp_path / "a")}[5] == np.float32(0.25)
    # What was meant once is in the checkpoint now, and nothing has to be meant again.
    assert train(tmp_path, *ALONE, "optimizer.learning_rate=0.25", "fit.steps=8").steps == 8


def test_another_optimizer_begins_its_slots_anew_and_says_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, *ALONE, "fit.steps=4", "optimizer=adam")
    before = content(tmp_path / "a")
    options = [*ALONE, "optimizer=sgd", "optimizer.ema_momentum=0.5", "fit.steps=5", "optimizer.learning_rate=1e-30"]
    with pytest.raises(ConfigDiffError, match='optimizer: "adam" -> "sgd"'):
        train(tmp_path, *options)
    capsys.readouterr()
    train(tmp_path, *options, "resume_changed=[optimizer]")
    said = capsys.readouterr().out
    # Adam and SGD both have a slot `momentum`, and mean something else by it.
    assert "hidden1/kernel@momentum restarts" in said
    after = content(tmp_path / "a")
    assert after["state:optimizer/iteration"] == 5
    # A moving average of the weights begins at the weights, not at zero.
    for kept in ("weights:hidden1/kernel", "optimizer:hidden1/kernel@unaveraged"):
        np.testing.assert_allclose(after[kept], before["weights:hidden1/kernel"], rtol=1e-5)


def test_another_seed_or_batch_takes_effect_only_where_it_is_meant(tmp_path: Path) -> None:
    train(tmp_path, *ALONE, "fit.steps=4", "model.dropout=0.3")
    for change in ("seed=9", "fit.global_batch=4"):
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        own = [*ALONE, "run=b", "model.dropout=0.3", change, "fit.steps=6"]
        with pytest.raises(ConfigDiffError):
            train(tmp_path, *own)
        assert train(tmp_path, *own, f"resume_changed=[{change.partition('=')[0]}]").steps == 6
        shutil.rmtree(tmp_path / "b")


def test_a_model_with_other_names_is_refused_with_the_rules_that_bridge_it_and_they_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_nets(tmp_path, monkeypatch)
    options = [*CUSTOM, "strategy=single", "data.limit=40", "run=a", "checkpoint.every_steps=3"]
    train(tmp_path, *options, "fit.steps=3")
    shutil.copytree(tmp_path / "a", tmp_path / "same")
    train(tmp_path, *options, "run=same", "fit.steps=7")
    renamed = [*options, "model.arguments.names=[trunk,label]", "fit.steps=7"]
    with pytest.raises(ResumeError) as error:
        train(tmp_path, *renamed)
    assert "trunk/kernel: not in the checkpoint" in str(error.value)
    assert "body/kernel: only in the checkpoint" in str(error.value)
    command = re.search(r"ckpt (rename .*)", str(error.value))
    assert command is not None
    assert ckpt(command[1].split()) == 0
    train(tmp_path, *renamed, "run=a_renamed", "resume_changed=[model]")
    given, taken = content(tmp_path / "same"), content(tmp_path / "a_renamed")
    assert_same(given, {name.replace("trunk", "body"): value for name, value in taken.items()})


CHANGED_MODELS = {
    "model.arguments.names=[label,body]": "label/kernel: the model has",  # swapped, of other shapes
    "model.arguments.width=9": "body/kernel: the model has (64, 9) float32, the checkpoint (64, 8) float32",
    "model.arguments.names=[body,head]": "head/kernel: not in the checkpoint",
}


def test_a_changed_model_is_refused_with_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_nets(tmp_path, monkeypatch)
    train(tmp_path, *CUSTOM, "strategy=single", "data.limit=40", "run=a", "fit.steps=2")
    for change, says in CHANGED_MODELS.items():
        for meant in ([], ["resume_changed=[model]"]):
            with pytest.raises(NameplateError) as error:
                train(tmp_path, *CUSTOM, "strategy=single", "data.limit=40", "run=a", "fit.steps=3", change, *meant)
            assert says in str(error.value)


def test_two_replicas_go_on_as_one_with_the_same_state(tmp_path: Path) -> None:
    """Slots, weights, seeds and the place in the data are those of the checkpoint; the rest of the run is the same."""
    options = [*RUN, "model.dropout=0", "checkpoint.every_steps=4", "checkpoint.keep_last=9"]
    train(tmp_path, *options)
    shutil.copytree(tmp_path / "a", tmp_path / "one")
    cut(tmp_path / "one", 4)
    train(tmp_path, *options, "run=one", "strategy=single")
    two, one = content(tmp_path / "a"), content(tmp_path / "one")
    for name in two:
        if not name.startswith("state:metrics"):
            np.testing.assert_allclose(one[name], two[name], rtol=1e-4, atol=1e-6)
    assert records(tmp_path / "one")[:4] == records(tmp_path / "a")[:4]


def test_metrics_of_a_mid_epoch_are_kept_under_another_number_of_replicas(tmp_path: Path) -> None:
    options = [*RUN, "model.dropout=0", "checkpoint.every_steps=4", "checkpoint.keep_last=9", "fit.steps=5"]
    whole = train(tmp_path, *options)
    cut(tmp_path / "a", 4)
    report = train(tmp_path, *options, "strategy=single")
    assert report.values["loss"] == pytest.approx(whole.values["loss"], rel=1e-5)
    assert report.values["accuracy"] == whole.values["accuracy"]


def test_the_names_of_metrics_do_not_depend_on_what_the_process_did_before() -> None:
    def names() -> set[str]:
        image = keras.Input((4,), name="x")
        model = keras.Model(image, keras.layers.Dense(1, activation="sigmoid", name="y")(image), name="m")
        model.compile("sgd", loss="binary_crossentropy", metrics=["AUC", "Precision", "accuracy"])
        prepare(model, (keras.KerasTensor((None, 4)), keras.KerasTensor((None, 1))))
        return set(train_state(model).local)

    first = names()
    assert "metrics/auc/true_positives" in first
    assert names() == first


OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda: keras.optimizers.SGD(momentum=0.9),
    "adam with amsgrad": lambda: keras.optimizers.Adam(amsgrad=True),
    "accumulating, averaging": lambda: keras.optimizers.Adam(
        use_ema=True, ema_momentum=0.9, gradient_accumulation_steps=2
    ),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(), dynamic_growth_steps=2),
    "ftrl": keras.optimizers.Ftrl,
    "adafactor": keras.optimizers.Adafactor,
    "nadam": keras.optimizers.Nadam,
}


@pytest.mark.parametrize(
    "optimizer", cases(OPTIMIZERS, short=["sgd", "accumulating, averaging", "loss scale", "adafactor"])
)
def test_everything_an_optimizer_keeps_comes_back_bit_for_bit(optimizer: str) -> None:
    def trained(seed: int) -> keras.Model:
        keras.utils.set_random_seed(seed)
        image = keras.Input((4,), name="x")
        x = keras.layers.Dropout(0.3, name="drop")(keras.layers.Dense(3, name="body")(image))
        model = keras.Model(image, keras.layers.Dense(1, name="y")(x), name="m")
        model.compile(OPTIMIZERS[optimizer](), loss="mse", metrics=["mae"])
        source = np.random.default_rng(seed)
        model.fit(source.random((12, 4)), source.random((12, 1)), batch_size=4, verbose=0)
        return model

    held = train_state(trained(1)).capture()
    other = trained(2)
    state = train_state(other)
    state.restore(held["weights"], held["optimizer"], held["state"])
    again = state.capture()
    for group, arrays in held.items():
        assert_same(again[group], arrays)
    in_training = {name.replace("@unaveraged", "@average") for name in held["optimizer"]}
    assert slots(other.optimizer, state.weights).keys() == in_training


def test_the_next_examples_are_the_same_ids_after_any_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """keras-hub#204: no example is seen twice in an epoch and none is left out; a weight counts each id."""
    write_nets(tmp_path, monkeypatch)
    data = write_data(tmp_path / "ids.npz", {index: float(index) for index in range(40)})
    options = [*data, *CUSTOM, "model._target_=my_nets.build_counting", "strategy=single"]
    options += ["fit.steps=13", "checkpoint.every_steps=3", "checkpoint.keep_last=99", "fit.steps_per_loop=3"]
    for resident in ("always", "never"):
        own = [*options, f"data.resident={resident}", f"run={resident}"]
        train(tmp_path, *own)
        whole = content(tmp_path / resident)
        for step in (9, 3):
            cut(tmp_path / resident, step)
            train(tmp_path, *own)
            assert_same(content(tmp_path / resident), whole)
        seen = whole["weights:counter/seen"]
        assert seen.sum() == 13 * 8
        assert set(seen.tolist()) == {2.0, 3.0}  # two whole epochs, and three fifths of the third


def test_a_resume_is_told_in_the_history_as_if_it_had_not_been(tmp_path: Path) -> None:
    options = [*ALONE, "fit.steps=15", "checkpoint.every_steps=4", "checkpoint.keep_last=9"]
    whole = train(tmp_path, *options)
    cut(tmp_path / "a", 8)
    assert train(tmp_path, *options).history == whole.history
    assert about(tmp_path / "a")["history"]["epoch"] == [0, 1, 2]
