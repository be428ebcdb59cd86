"""The best model as a `.keras` file: for plain Keras, in a process that knows nothing of this project."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from nameplate import checkpoint as store
from nameplate.engine.compile import make_schedule
from nameplate.engine.learning_rate import PIECES, WarmupDecay, keras_schedule
from nameplate.errors import NameplateError
from nameplate.training.best_model import export_best
from tests.trainer.running import QUICK, content, train
from trainer.config import run_config
from trainer.job.model import rebuild

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


COMPILED = """
import json, sys, keras, numpy as np
found = {}
for path in sys.argv[2:]:
    model = keras.saving.load_model(path)
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    step = int(inner.iterations)
    rates = []
    for place in range(8):
        inner.iterations.assign(place)
        rates.append(float(inner.learning_rate))
    shape = (2, *model.input_shape[1:])
    x = np.linspace(0, 1, int(np.prod(shape)), dtype="float32").reshape(shape)
    outputs = np.asarray(model(x, training=False)).tolist()
    slots = {variable.path: float(np.abs(variable.numpy()).sum()) for variable in inner.variables}
    inner.iterations.assign(step)
    model.fit(x, np.array([0, 1]), epochs=1, verbose=0)
    found[path] = {"step": step, "rates": rates, "outputs": outputs, "slots": slots}
assert not [name for name in sys.modules if name.split(".")[0] in ("models", "trainer")]
json.dump(found, open(sys.argv[1], "w"))
"""
E1_RUNS = {
    "default": ["schedule=cosine"],
    "warm": ["schedule=cosine", "schedule.warmup_steps=3", "fit.precision=mixed_float16"],
    "number": [],
}


def test_e1_plain_keras_loads_a_compiled_model_with_its_learning_rate(tmp_path: Path) -> None:
    """In a process that imports nothing of ours: the same outputs, rates, and state of the optimizer."""
    for name, options in E1_RUNS.items():
        train(tmp_path, "model=mlp", f"run={name}", "data.limit=40", "fit.epochs=2", "fit.steps=8", *options,
              "strategy=single", "checkpoint.export_keras=best", "checkpoint.keep_last=9")  # fmt: skip
    paths = [str(tmp_path / name / "best.keras") for name in E1_RUNS]
    subprocess.run([sys.executable, "-c", COMPILED, tmp_path / "seen.json", *paths], check=True, cwd=tmp_path)
    seen = json.loads((tmp_path / "seen.json").read_text())
    for name, path in zip(E1_RUNS, paths, strict=True):
        config = run_config([*QUICK, "model=mlp", *E1_RUNS[name]])
        rate = make_schedule(config.schedule, config.optimizer.learning_rate, 8)
        rates = [float(rate(step)) if callable(rate) else rate for step in range(8)]
        np.testing.assert_allclose(seen[path]["rates"], rates, rtol=1e-5, atol=1e-9, err_msg=name)  # float32
        best = store.resolve(tmp_path / name / "checkpoints", "best")
        assert best is not None
        with store.open(best) as checkpoint:
            assert seen[path]["step"] == checkpoint.step
            slots = {key: float(np.abs(value).sum()) for key, value in checkpoint.optimizer.load().items()}
            source = rebuild(str(best)).model
        x = np.linspace(0, 1, 2 * 64, dtype="float32").reshape((2, *source.input_shape[1:]))
        np.testing.assert_allclose(seen[path]["outputs"], np.asarray(source(x, training=False)), rtol=1e-5, atol=1e-5)
        own = sorted(value for key, value in seen[path]["slots"].items() if "iteration" not in key)
        own = [value for value in own if not any(np.isclose(value, rate, rtol=1e-6) for rate in rates)]
        np.testing.assert_allclose(own, sorted(slots.values()), rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("decay", ["constant", "cosine", "linear", "exponential"])
@pytest.mark.parametrize(
    ("warmup", "steps"),
    [(5, 90), *(pytest.param(*lengths, marks=pytest.mark.long) for lengths in ((0, 90), (1, 90), (40, 4000)))],
)
def test_e1_a_schedule_is_the_same_curve_in_keras_own_words(decay: str, warmup: int, steps: int) -> None:
    rate = WarmupDecay(rate=0.01, decay=decay, warmup_steps=warmup, decay_steps=steps, final=0.01)
    found = keras_schedule(rate, steps=steps + warmup)
    places = np.unique(np.linspace(0, steps + warmup - 1, 120).astype(int))
    values = [float(found(step)) if callable(found) else found for step in places.tolist()]
    exact = warmup + steps <= PIECES or not warmup or decay == "constant"
    gap = np.abs(values - rate.values(places)).max() / rate.rate
    # Float32's rounding; else a step's difference of Keras' cosine, or half the height of a table's piece.
    assert gap < (1e-6 if exact else 1 / steps if decay == "cosine" else 0.006)
    if callable(found):
        assert type(found).__module__.startswith("keras.")


def test_e1_what_a_file_for_plain_keras_needs_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["data.limit=40", "fit.steps=2", "strategy=single", "checkpoint.export_keras=best"]
    train(tmp_path, "model=vit", "model.layers=1", "run=vit", *options)
    assert "first import trainer.models.vit" in capsys.readouterr().out
    train(tmp_path, "model=mlp", "run=mlp", "optimizer.rates={label: 1e-2}", *options)
    assert "cannot hold optimizer.rates" in capsys.readouterr().out


def test_a_model_of_classes_of_its_own_is_exported_too(tmp_path: Path) -> None:
    train(tmp_path, "model=subclassed", "model.layers=1", "run=a", "fit.steps=2", "strategy=single",
          "checkpoint.export_keras=best")  # fmt: skip
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
    with pytest.raises(NameplateError, match="would come back different"):  # found by `nameplate.save` already
        export_best(model, tmp_path / "checkpoints", tmp_path / "best.keras", example=image)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints"]
