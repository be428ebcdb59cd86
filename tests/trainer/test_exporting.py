"""The best model as a `.keras` file: for plain Keras, in a process that knows nothing of this project."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from models import store
from tests.trainer.running import content, train
from trainer.exporting import ExportError, export_best

pytestmark = pytest.mark.usefixtures("strategy")

PLAIN = """
import sys, keras, numpy as np
model = keras.saving.load_model(sys.argv[1])
assert not [name for name in sys.modules if name.split(".")[0] in ("models", "trainer")]
np.savez(sys.argv[2], **{variable.path: variable.numpy() for variable in model.weights})
"""


def test_plain_keras_loads_the_best_model_with_its_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["model=convnet", "model.width=8", "run=a", "data.limit=40", "fit.epochs=3", "checkpoint.keep_last=9"]
    train(tmp_path, *options, "optimizer.learning_rate=0.3", "checkpoint.export_keras=best")
    assert "best.keras, for plain Keras" in capsys.readouterr().out
    path = tmp_path / "a" / "best.keras"
    subprocess.run([sys.executable, "-c", PLAIN, path, tmp_path / "seen.npz"], check=True, cwd=tmp_path)
    seen = dict(np.load(tmp_path / "seen.npz"))
    best = store.resolve(tmp_path / "a" / "checkpoints", "best")
    assert best is not None
    with store.open(best) as checkpoint:
        held = checkpoint.weights.load()
    assert seen.keys() == held.keys()
    assert all(seen[name].tobytes() == held[name].tobytes() for name in held)


def test_a_model_of_classes_of_its_own_is_exported_too(tmp_path: Path) -> None:
    train(tmp_path, "model=subclassed", "model.layers=1", "run=a", "fit.steps=2", "checkpoint.export_keras=best")
    assert (tmp_path / "a" / "best.keras").is_file()


def test_the_run_keeps_its_own_last_weights(tmp_path: Path) -> None:
    """Also where the best were others: the export borrows the model."""
    options = ["model=mlp", "run=a", "data.limit=40", "fit.epochs=2", "checkpoint.export_keras=best"]
    train(tmp_path, *options)
    train(tmp_path, *options[:-1], "run=b")
    given, plain = content(tmp_path / "a"), content(tmp_path / "b")
    assert all(given[name].tobytes() == plain[name].tobytes() for name in plain)


def test_what_would_compute_something_else_is_not_left_behind(tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable(package="tests")
    class Forgets(keras.layers.Layer):
        """Multiplies by a number that its configuration does not have."""

        factor = 1.0

        def call(self, x: Any) -> Any:
            return x * self.factor

    image = keras.Input((4,), name="x")
    forgetful = Forgets(name="forgetful")
    forgetful.factor = 2.0
    body = forgetful(keras.layers.Dense(3, name="body")(image))
    model = keras.Model(image, body, name="m")
    weights = {"body/kernel": np.array(model.layers[1].kernel), "body/bias": np.array(model.layers[1].bias)}
    snapshot = store.Snapshot(1, 0, 0, weights, {}, {}, {}, model="", config="", about={})
    store.save(tmp_path / "checkpoints", snapshot)
    with pytest.raises(ExportError, match="would compute something else"):
        export_best(model, tmp_path / "checkpoints", tmp_path / "best.keras", example=image)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints"]
