from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import nameplate
from nameplate.errors import NameplateError
from tests.nameplate.naming_models import KINDS, functional


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
def test_what_is_read_can_be_written_into_the_same_model_built_again(make: Any) -> None:
    source, target = make(), make()
    nameplate.write(target, nameplate.read(source))

    assert all(np.array_equal(value, nameplate.read(target)[name]) for name, value in nameplate.read(source).items())


def test_reading_copies() -> None:
    model = functional()
    before = nameplate.read(model)
    before["hidden/kernel"][:] = 9.0

    assert not np.any(nameplate.read(model)["hidden/kernel"] == 9.0)


def test_a_mirrored_variable_is_read_once_and_written_on_every_replica(strategy: Any) -> None:
    with strategy.scope():
        model = functional()
    weights = {name: np.zeros_like(value) for name, value in nameplate.read(model).items()}
    nameplate.write(model, weights)

    assert all(not np.any(part.numpy()) for v in model.variables for part in v.value.values)
    assert len(weights) == len(model.variables)


def test_weights_that_do_not_fit_are_told_all_at_once_and_nothing_is_written() -> None:
    model = functional()
    before = nameplate.read(model)
    weights = {**before, "hiden/kernel": before["hidden/kernel"], "logits/bias": np.zeros(4, "float32")}
    weights["norm/gamma"] = np.zeros(5, "float64")
    del weights["hidden/kernel"]

    with pytest.raises(NameplateError) as caught:
        nameplate.write(model, weights)

    assert [line.split()[:2] for line in str(caught.value).splitlines()[1:]] == [
        ["missing", "hidden/kernel"],
        ["unexpected", "hiden/kernel"],
        ["dtype", "norm/gamma:"],
        ["shape", "logits/bias:"],
    ]
    assert "Did you mean 'hiden/kernel'" in str(caught.value)
    assert all(np.array_equal(value, before[name]) for name, value in nameplate.read(model).items())


def test_lower_precision_comes_back_bit_for_bit() -> None:
    x = keras.Input((3,), name="x")
    model = keras.Model(x, keras.layers.Dense(2, dtype="bfloat16", name="fc")(x), name="m")
    weights = nameplate.read(model)
    nameplate.write(model, weights)

    assert weights["fc/kernel"].dtype.name == "bfloat16"
    assert weights["fc/kernel"].tobytes() == nameplate.read(model)["fc/kernel"].tobytes()
