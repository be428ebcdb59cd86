"""Batch statistics over all replicas are one device's, and so is every derivative of theirs."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from nameplate.engine.collectives import sum_over_replicas
from nameplate.engine.statistics import moments

X = np.random.default_rng(3).normal(1000.0, 1.0, (7, 3))
MASK = (np.random.default_rng(4).random((7, 3)) < 0.7).astype("float64")


def normalized(x: tf.Tensor, mask: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
    """Return a number made of normalised values, of all replicas, and its gradient's length: a penalty."""
    with tf.GradientTape() as inner:
        inner.watch(x)
        mean, variance = moments(x, [0], mask=mask)
        value = sum_over_replicas(tf.reduce_sum(tf.math.sin(x * (x - mean) / tf.sqrt(variance + 1e-3))))
    return value, sum_over_replicas(tf.reduce_sum(inner.gradient(value, x) ** 2))


def derived(x: tf.Tensor, mask: tf.Tensor | None) -> tuple[tf.Tensor, ...]:
    with tf.GradientTape() as outer:
        outer.watch(x)
        value, penalty = normalized(x, mask)
    return value, penalty, outer.gradient(penalty, x)


@pytest.mark.parametrize("masked", [False, True])
def test_second_derivatives_of_unequal_shares_are_those_of_all_examples(strategy: Any, masked: bool) -> None:
    shares = [slice(0, 4), slice(4, 7)]

    @tf.function(autograph=False)
    def on_replicas() -> Any:
        def of_replica() -> tuple[tf.Tensor, ...]:
            share = shares[tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group)]
            return derived(tf.constant(X[share]), tf.constant(MASK[share]) if masked else None)

        return strategy.run(of_replica)

    value, penalty, gradient = (strategy.experimental_local_results(each) for each in on_replicas())
    alone = tf.constant(X)
    expected = derived(alone, tf.constant(MASK) if masked else None)
    # Every replica adds its gradient of the same sum: two of them make it twice as long, and its square four times.
    np.testing.assert_allclose(value[0], expected[0])
    np.testing.assert_allclose(penalty[0], 4 * expected[1], rtol=1e-9)
    np.testing.assert_allclose(np.concatenate(gradient), 8 * expected[2], rtol=1e-6, atol=1e-6)


def test_what_is_traced_goes_when_nobody_needs_it(strategy: Any) -> None:
    def traced() -> weakref.ref[Any]:
        @tf.function(autograph=False)
        def on_replicas() -> Any:
            return strategy.run(lambda: derived(tf.constant(X), None))

        return weakref.ref(on_replicas.get_concrete_function().graph)

    graph = traced()
    gc.collect()
    assert graph() is None
