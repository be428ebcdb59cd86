"""`nameplate.train` from Python, by overrides or with live objects, and what it returns."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import keras
import numpy as np
import pytest

import nameplate
from nameplate import checkpoint as store
from nameplate.errors import NameplateError
from tests.nameplate.training.script import CLASSES, LOG, WIDTH, examples


def network() -> keras.Model:
    x = keras.Input((WIDTH,), name="x")
    return keras.Model(x, keras.layers.Dense(CLASSES, "softmax", name="classes")(x), name="net")


@pytest.fixture(scope="module")
def report(strategy: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the report of a run of live objects whose first epoch is its best."""
    keras.utils.set_random_seed(1)
    with strategy.scope():
        return nameplate.train(
            model=network(),
            data=examples(),
            loss="sparse_categorical_crossentropy",
            optimizer=keras.optimizers.SGD(0.5),
            metrics=["accuracy"],
            run=tmp_path_factory.mktemp("runs") / "mine",
            validation_split=0.2,
            epochs=3,
            checkpoint=nameplate.Checkpoint(monitor="val_loss"),
            log=LOG,
        )


def test_live_objects_are_a_whole_run(report: Any) -> None:
    assert report.steps == 9
    assert report.best == min(report.history["val_loss"])
    assert report.names == {"x": "InputLayer", "classes": "Dense"}
    assert report.run.history["val_loss"] == pytest.approx(report.history["val_loss"])
    assert list(report.run.checkpoints)[-1] == 9


def test_its_model_has_the_best_weights(report: Any) -> None:
    best = store.open(report.run.best).weights.load()
    np.testing.assert_array_equal(report.model.get_layer("classes").kernel.numpy(), best["classes/kernel"])
    measured = report.model.evaluate(*[part[96:] for part in examples()], verbose=0)
    assert measured[0] == pytest.approx(report.best, rel=1e-5)


def test_a_notebook_shows_curves_and_layers(report: Any) -> None:
    shown = report._repr_html_()
    tree = ElementTree.fromstring(shown)
    drawings = tree.findall(".//svg")
    assert len(drawings) == 2  # loss and accuracy, each with its validation
    assert all(len(drawing.findall("polyline")) == 2 for drawing in drawings)
    assert "classes" in shown


@pytest.mark.parametrize(("method", "package"), [("frame", "pandas"), ("plot", "matplotlib")])
def test_what_needs_a_package_that_is_not_there_says_so(
    report: Any, method: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [package, f"{package}.figure"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(NameplateError, match=f"pip install {package}"):
        getattr(report, method)()


def test_a_configured_run_inside_another_scope_is_refused(strategy: Any, tmp_path: Path) -> None:
    with strategy.scope(), pytest.raises(NameplateError, match="inside the scope of another strategy"):
        nameplate.train(["model=mlp", "run=a", f"runs={tmp_path}"])
    assert not (tmp_path / "a").exists()


@pytest.mark.usefixtures("strategy")
def test_overrides_are_a_whole_run_too(tmp_path: Path) -> None:
    overrides = ["model=mlp", "run=a", f"runs={tmp_path}", "fit.steps=2", "log.tensorboard=false", "data.limit=64"]
    report = nameplate.train(overrides)
    assert report.steps == 2
    assert report.model.count_params() > 0
    assert {"loss", "val_loss"} <= report.history.keys()


@pytest.mark.parametrize(
    ("arguments", "given", "message"),
    [
        (("model=mlp",), {}, r"config='model=mlp': a RunConfig, or a list of overrides"),
        ((5,), {}, r"config=5: a RunConfig, a list of strings or None is needed"),
        ((["model=mlpp"],), {}, r"mlp"),
        ((["model=mlp"],), {"data": 1}, r"not both"),
        ((), {"data": None, "optimiser": "sgd"}, r"optimiser=...: there is no such argument. .*optimizer"),
        ((), {"model": 3}, r"model=3: a keras.Model or None is needed, not an int"),
    ],
)
def test_wrong_arguments_are_refused_together(arguments: tuple[Any, ...], given: dict[str, Any], message: str) -> None:
    with pytest.raises(NameplateError, match=message):
        nameplate.train(*arguments, **given)
