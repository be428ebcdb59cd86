"""Random numbers are a replica's own while steps are traced, and Keras' otherwise."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from nameplate.engine import one_device
from nameplate.engine.one_device import as_one_device
from nameplate.engine.private import copies


def test_replicas_draw_differently_and_the_first_as_one_device(strategy: Any) -> None:
    def draw(generator: keras.random.SeedGenerator) -> Any:
        return keras.random.uniform((4,), seed=generator)

    alone = draw(keras.random.SeedGenerator(7)).numpy()
    with strategy.scope():
        generator = keras.random.SeedGenerator(7)

        @tf.function
        def step() -> Any:
            with as_one_device():
                return strategy.run(lambda: draw(generator))

        first, second = (each.numpy() for each in strategy.experimental_local_results(step()))
        states = [copy.numpy().tolist() for copy in copies(generator.state)]
    np.testing.assert_array_equal(first, alone)
    assert not np.array_equal(first, second)
    assert states[0] == states[1] == [7, 1]


def test_without_as_one_device_replicas_draw_the_same(strategy: Any) -> None:
    with strategy.scope():
        generator = keras.random.SeedGenerator(7)
        drawn = tf.function(lambda: strategy.run(lambda: keras.random.uniform((4,), seed=generator)))()
    first, second = strategy.experimental_local_results(drawn)
    np.testing.assert_array_equal(first, second)


def test_every_patch_goes_away_with_its_context_also_inside_another() -> None:
    def found() -> list[Any]:
        patched = [getattr(place, name) for (place, name), _ in one_device._HOOKS]
        return [*patched, vars(keras.Layer).get("_losses")]

    before = found()
    with as_one_device():
        outer = found()
        assert all(changed is not original for changed, original in zip(outer, before, strict=True))
        with pytest.raises(RuntimeError), as_one_device():
            raise RuntimeError
        assert found() == outer
    assert found() == before


def test_a_layer_has_losses_of_its_own_before_while_and_after_steps_are_traced() -> None:
    before = keras.layers.ReLU(name="before")
    with as_one_device():
        made = keras.layers.ReLU(name="made")
        for layer in (before, made):
            layer.add_loss(tf.ones(()))
            assert len(layer.losses) == 1
    assert before.losses == made.losses == []
