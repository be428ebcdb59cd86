"""Mixed precision on two replicas: it trains, and a gradient that overflows on one skips the step on all."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import nameplate
from tests.nameplate.engine.replication import nets

NUMBERS = np.random.default_rng(0)
X = NUMBERS.normal(size=(32, 4)).astype("float32")
Y = X[:, :2] - X[:, 2:]


def model_of(strategy: Any, policy: str, optimizer: Any) -> keras.Model:
    keras.utils.set_random_seed(1)
    with nullcontext() if strategy is None else strategy.scope():
        head = layers.Dense(2, name="head", dtype=policy)
        model = keras.Sequential([keras.Input((4,)), head, layers.Activation("linear", dtype="float32")], name="small")
        model.compile(optimizer(), "mse")
    return model


def scaled(initial_scale: float = 2.0**15) -> keras.Optimizer:
    return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=initial_scale)


def copies(strategy: Any, variable: keras.Variable) -> list[Any]:
    return [copy.numpy() for copy in strategy.experimental_local_results(variable.value)]


@pytest.mark.parametrize(
    ("policy", "optimizer"),
    [("mixed_bfloat16", lambda: keras.optimizers.SGD(0.1)), ("mixed_float16", scaled)],
    ids=["mixed_bfloat16", "mixed_float16"],
)
def test_two_replicas_train_in_mixed_precision_as_one_device_does(strategy: Any, policy: str, optimizer: Any) -> None:
    found = []
    for each in (None, strategy):
        model = model_of(each, policy, optimizer)
        history = nameplate.fit(model, (X, Y), batch_size=8, epochs=5).history
        assert history["loss"][-1] < 0.2 * history["loss"][0]
        found.append(model.get_layer("head").kernel.numpy())
    # A number of bfloat16 has 8 bits, of float16 11: what is left of one rounding a step.
    np.testing.assert_allclose(found[1], found[0], atol=0.01 if policy == "mixed_bfloat16" else 0.002)


def test_a_gradient_that_overflows_on_one_replica_skips_the_step_on_all(strategy: Any) -> None:
    """The first replica's examples are zeros, and have no gradient at all."""
    x, y = X[:8].copy(), Y[:8].copy()
    x[:4] = y[:4] = 0
    model = model_of(strategy, "mixed_float16", lambda: scaled(2.0**24))
    kernel, optimizer = model.get_layer("head").kernel, model.optimizer
    before = kernel.numpy()
    nameplate.fit(model, (x, y), batch_size=8, shuffle=False)
    assert copies(strategy, optimizer.dynamic_scale) == [2.0**23] * 2
    assert copies(strategy, optimizer.inner_optimizer.iterations) == [0, 0]
    for copy in copies(strategy, kernel):
        np.testing.assert_array_equal(copy, before)
    nameplate.fit(model, (x, y), batch_size=8, epochs=19, shuffle=False)
    scale, taken = copies(strategy, optimizer.dynamic_scale), copies(strategy, optimizer.inner_optimizer.iterations)
    assert scale[0] == scale[1] == 2.0 ** (24 - (20 - taken[0]))  # halved by each of the 20 steps that was not taken
    assert 0 < taken[0] == taken[1] < 20
    one, other = copies(strategy, kernel)
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, before)


class OwnScaled(nets.OwnStep):
    """A model with a training step of its own that scales its loss, as Keras' guide to mixed precision has it."""

    def own(self, y: Any, predicted: Any) -> Any:
        return self.optimizer.scale_loss(super().own(y, predicted))


def test_a_train_step_of_its_own_may_scale_its_loss(strategy: Any) -> None:
    found = []
    for scope in (nullcontext(), strategy.scope()):
        keras.utils.set_random_seed(1)
        with scope:
            model = OwnScaled()
            model.compile(scaled(2.0**12), "mse")
        nameplate.fit(model, (X[:21], Y[:21]), batch_size=8)
        assert int(model.optimizer.inner_optimizer.iterations.numpy()) == 3
        found.append(model.value.kernel.numpy())
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)
