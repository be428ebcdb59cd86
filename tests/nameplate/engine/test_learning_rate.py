"""Learning rates by pattern: with every optimizer what an optimizer of that rate does, on one replica and on two."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from nameplate.engine import private
from nameplate.engine.learning_rate import set_rates
from nameplate.errors import NameplateError
from nameplate.weights.named import WeightsError
from tests.long import cases
from tests.trainer.running import content, train

USUAL, SLOW = 2.0**-3, 2.0**-5  # powers of two: their ratio is exact

OPTIMIZERS: dict[str, Callable[[float], keras.Optimizer]] = {
    "sgd": lambda rate: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": keras.optimizers.Adam,
    "adamw": lambda rate: keras.optimizers.AdamW(rate, amsgrad=True, clipnorm=1.0),
    "rmsprop": lambda rate: keras.optimizers.RMSprop(rate, momentum=0.5),
    "lion": lambda rate: keras.optimizers.Lion(rate, weight_decay=0.1),
    "nadam": keras.optimizers.Nadam,
    "adagrad": keras.optimizers.Adagrad,
    "adamax": keras.optimizers.Adamax,
    "adafactor": keras.optimizers.Adafactor,
    "ftrl": keras.optimizers.Ftrl,
    "ema": lambda rate: keras.optimizers.SGD(rate, use_ema=True),
    "loss scaling": lambda rate: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(rate), initial_scale=2.0),
}


def two_layers(optimizer: keras.Optimizer) -> keras.Model:
    """Return a model of two layers with an optimizer that is built."""
    inputs = keras.Input((3,), name="features")
    x = keras.layers.Dense(4, name="trunk", kernel_initializer=keras.initializers.GlorotUniform(seed=1))(inputs)
    outputs = keras.layers.Dense(2, name="head", kernel_initializer=keras.initializers.GlorotUniform(seed=2))(x)
    model = keras.Model(inputs, outputs, name="two_layers")
    model.compile(optimizer, loss="mse")
    optimizer.build(model.trainable_variables)
    return model


def updated(model: keras.Model) -> dict[str, np.ndarray]:
    """Return the weights after three steps on fixed gradients."""
    for step in range(3):
        random = np.random.default_rng(step)
        gradients = [
            keras.ops.convert_to_tensor(random.normal(size=each.shape).astype("float32"))
            for each in model.trainable_variables
        ]
        model.optimizer.apply(gradients, model.trainable_variables)
    return {each.path: np.asarray(each.numpy()) for each in model.trainable_variables}


@pytest.mark.parametrize("kind", cases(OPTIMIZERS, short=["sgd", "adamw", "adafactor", "ema", "loss scaling"]))
def test_a_layer_moves_as_under_an_optimizer_of_its_rate_and_the_others_as_before(kind: str) -> None:
    make = OPTIMIZERS[kind]
    usual, slow, both = updated(two_layers(make(USUAL))), updated(two_layers(make(SLOW))), two_layers(make(USUAL))
    rates = set_rates(both, {"trunk": SLOW}, usual=USUAL)
    found = updated(both)

    assert rates == {"trunk/kernel": SLOW, "trunk/bias": SLOW, "head/kernel": USUAL, "head/bias": USUAL}
    # A norm that is clipped over each gradient is the same in all three; nothing else looks at several variables.
    for path, value in found.items():
        np.testing.assert_array_equal(value, (slow if path.startswith("trunk") else usual)[path])
    assert not np.array_equal(slow["trunk/kernel"], usual["trunk/kernel"])


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({"trunk": 1.0, "trunk/bias": 2.0}, [1.0, 2.0, 0.5, 0.5]),
        ({"trunk/bias": 2.0, "trunk": 1.0}, [1.0, 2.0, 0.5, 0.5]),
        ({"*/bias": 2.0}, [0.5, 2.0, 0.5, 2.0]),
        ({"*": 1.0, "head": 2.0}, [1.0, 1.0, 2.0, 2.0]),
    ],
)
def test_the_longest_pattern_counts_in_whatever_order(rates: dict[str, float], expected: list[float]) -> None:
    model = two_layers(keras.optimizers.SGD(0.5))
    assert list(set_rates(model, rates, usual=0.5).values()) == expected


@pytest.mark.parametrize(
    ("rates", "kind", "part"),
    [
        ({"trnk": 1.0}, WeightsError, "'trnk' Did you mean 'trunk'"),
        ({"trunk": 1.0, "trunk/*": 2.0}, NameplateError, "'trunk': what it matches has the rate of 'trunk/*'"),
        ({"trunk/*": 1.0, "*/biases": 1.0}, WeightsError, "*/biases"),
        ({"*/bias": 1.0, "*/bia?": 2.0}, NameplateError, "both match trunk/bias, and are equally long; leave one out"),
    ],
)
def test_rates_that_cannot_be_meant_are_refused(rates: dict[str, float], kind: type[Exception], part: str) -> None:
    model = two_layers(keras.optimizers.SGD(0.5))
    with pytest.raises(kind) as refused:
        set_rates(model, rates, usual=0.5)
    assert part in re.sub(r"\. Did", " Did", str(refused.value))


@pytest.mark.usefixtures("strategy")
def test_two_replicas_learn_at_the_rates_as_one_does_and_the_schedule_goes_over_all(tmp_path: Path) -> None:
    options = [
        "model=mlp",
        "model.hidden=[8]",
        "data.limit=32",
        "fit.epochs=2",
        "optimizer=adamw",
        "optimizer.rates={label: 1e-4}",
        "schedule=cosine",
    ]
    train(tmp_path, *options, "run=two")
    train(tmp_path, *options, "strategy=single", "run=one")
    two, one = content(tmp_path / "two"), content(tmp_path / "one")
    weights = [name for name in one if name.startswith("weights:")]

    assert weights
    for name in weights:
        np.testing.assert_allclose(two[name], one[name], rtol=0, atol=1e-6)  # sums in another order


def test_a_learning_rate_is_replaced_in_the_configuration_too_and_comes_back() -> None:
    schedule = keras.optimizers.schedules.CosineDecay(0.5, 10)
    for rate in (0.25, keras.optimizers.schedules.CosineDecay(0.25, 10)):
        optimizer = keras.optimizers.SGD(rate)
        before, held = optimizer.get_config(), private.learning_rate_of(optimizer)
        with private.learning_at(optimizer, schedule):
            assert optimizer.get_config()["learning_rate"]["config"]["initial_learning_rate"] == 0.5
        assert optimizer.get_config() == before
        assert private.learning_rate_of(optimizer) is held
