"""Models that override how they train and what they measure are honoured, and a run says once what that costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import nameplate
from tests.nameplate.engine.replication import nets
from tests.nameplate.engine.replication.data import vectors
from tests.trainer.running import train

MODULE = """
import keras

@keras.saving.register_keras_serializable(package="my_steps")
class Own(keras.Model):
    def train_step(self, data):
        return super().train_step(data)

def build(input_shape, classes):
    x = keras.Input(input_shape, name="x")
    flat = keras.layers.Flatten(name="flat")(x)
    return Own(x, keras.layers.Dense(classes, name="y")(flat), name="mine")
"""


def test_the_history_holds_what_a_train_step_of_its_own_tells(strategy: Any) -> None:
    """Of the last step, as Keras; its 21 examples are not shared evenly, and their mean loss is told all the same."""
    x, y = vectors(21)
    with strategy.scope():
        model = nets.own(nets.Tells)()
    expected = np.mean(np.square(model.predict(x, verbose=0) - y))
    history = nameplate.fit(model, (x, y), batch_size=24).history
    assert history == {"loss": [pytest.approx(expected, rel=1e-5)], "double": [pytest.approx(2 * expected, rel=1e-5)]}


class OwnMetrics(nets.OwnStep):
    """Measures what it likes, too."""

    train_step = keras.Model.train_step

    def __init__(self) -> None:
        super().__init__()
        self.seen = keras.metrics.Sum(name="seen")

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        self.seen.update_state(tf.ones(tf.shape(x)[:1]))
        return super().compute_metrics(x, y, y_pred, sample_weight)


@pytest.mark.parametrize("size", [1, 21])
def test_a_compute_metrics_of_its_own_sees_every_example_once(strategy: Any, size: int) -> None:
    data = vectors(size)
    with strategy.scope():
        model = nets.own(OwnMetrics, "mae")()
    history = nameplate.fit(model, data, batch_size=8, epochs=2, validation_data=data).history
    assert history["seen"] == history["val_seen"] == [size, size]


@pytest.mark.usefixtures("strategy")
def test_a_run_says_once_what_a_train_step_of_its_own_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_steps.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    options = ["model=custom", "model._target_=my_steps.build", "trust=[my_steps]", "dry_run=true", "data.limit=40"]
    train(tmp_path, *options)
    assert capsys.readouterr().out.count("train_step is the model's own") == 1
