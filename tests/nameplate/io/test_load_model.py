"""Models of configurations that ask for more than their file has (F3): refused before anything is made."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import nameplate
from nameplate.errors import FileFormatError
from nameplate.formats.limits import budget_of
from nameplate.io import load_model
from tests.nameplate.formats.test_hostile import rewritten

HUGE: dict[str, dict[str, Any]] = {
    "dense": {"class_name": "Dense", "config": {"name": "a", "units": 4_000_000_000}},
    "embedding": {
        "class_name": "Embedding",
        "config": {"name": "a", "input_dim": 4_000_000_000, "output_dim": 4},
        "build_config": {"input_shape": [None, 2]},
    },
}


@pytest.mark.parametrize("kind", HUGE)
@pytest.mark.parametrize("trust", [False, True])
def test_f3_a_layer_that_is_out_of_proportion_to_its_file_is_not_made(kind: str, trust: bool, tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        layer = config["config"]["layers"][1]
        layer.pop("build_config")
        layer |= {"module": "keras.layers", "registered_name": None, **HUGE[kind]}

    path = rewritten(tmp_path / "m.keras", change)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FileFormatError, match=r"the model of .* is refused: its .* bytes would grow to"):
        nameplate.load(path, trust=trust)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 << 10  # KiB: no gigabytes were made


def test_f3_a_model_of_many_weights_may_take_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "m.keras"
    file.write_bytes(bytes(100))
    now = iter(range(0, 10_000_000, 1000))  # seconds; each look at the clock is another 1000 later
    monkeypatch.setattr("nameplate.formats.limits.time.thread_time", lambda: next(now))
    with load_model.within_budget(file):
        for _ in range(2000):
            layers.Dense(1, name="a").add_weight(shape=(1,), name="w")
    with pytest.raises(FileFormatError, match="take too long to look through"):
        budget_of(file).spend(items=2000)


def test_f3_every_weight_is_counted_and_the_layers_are_as_before(tmp_path: Path) -> None:
    inputs = keras.Input((4, 2), name="x")
    x = layers.LSTM(3, name="cell")(layers.MultiHeadAttention(2, 2, name="look")(inputs, inputs))
    model = keras.Model(inputs, layers.Dense(1, name="a", dtype="float16")(x), name="m")
    counted: list[int] = []
    own = layers.Layer.add_weight
    with load_model._weights_within(counted.append):
        keras.models.clone_model(model)
    assert sum(counted) == sum(np.prod(each.shape) * np.dtype(each.dtype).itemsize for each in model.weights
                               if not each.path.endswith("state"))  # fmt: skip
    assert layers.Layer.add_weight is own
    nameplate.save(model, tmp_path / "m.keras")
    assert nameplate.load(tmp_path / "m.keras").count_params() == model.count_params()
