"""Random layers draw differently on each replica, and the same again from seed, replica and step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import nameplate
from nameplate.data.config import DigitsConfig
from nameplate.data.dataset import Field
from nameplate.data.images import augmentation

STEPS, SHARE, SHAPE = 3, 2, (6, 6, 1)
IMAGE = np.linspace(0.1, 0.9, 36, dtype="float32").reshape(SHAPE)  # every example: only chance can tell them apart


class Keeps(layers.Layer):
    """Passes its input on and keeps it, each replica in a place of its own, a step after another."""

    def build(self, shape: Any) -> None:
        fixed: dict[str, Any] = {"initializer": "zeros", "trainable": False}
        self.kept = self.add_weight(shape=(2, STEPS, SHARE, *SHAPE), name="kept", **fixed)
        self.step = self.add_weight(shape=(), dtype="int32", name="step", **fixed)

    def call(self, x: Any, training: bool = False) -> Any:
        if training:
            context = tf.distribute.get_replica_context()
            replica = 0 if context is None else context.replica_id_in_sync_group
            where = keras.ops.reshape(keras.ops.one_hot(replica, 2), (2, 1, 1, 1, 1, 1))
            when = keras.ops.reshape(keras.ops.one_hot(self.step, STEPS), (1, STEPS, 1, 1, 1, 1))
            self.kept.assign(self.kept + where * when * x)
            self.step.assign(self.step + 1)
        return x


def drawn(strategy: Any, layer: Callable[..., Any], *, seed: int = 1, steps_per_loop: int | None = None) -> Any:
    """Return what a random layer made of equal images, (replicas, steps, share, ...); on one device where None."""
    replicas = 1 if strategy is None else 2
    with nullcontext() if strategy is None else strategy.scope():
        keeps = Keeps(name="keeps")
        head = [layers.Flatten(name="flat"), layers.Dense(1, name="head")]
        model = keras.Sequential([keras.Input(SHAPE), layer(seed), keeps, *head], name="random")
        model.compile("sgd", "mse")
    batch = replicas * SHARE
    images = np.broadcast_to(IMAGE, (STEPS * batch, *SHAPE))
    nameplate.fit(model, (images, np.zeros(len(images))), batch_size=batch, steps_per_loop=steps_per_loop)
    return keeps.kept.numpy()[:replicas] * replicas  # after training it is the mean over the replicas


def _augmentation(seed: int) -> Any:
    return augmentation(DigitsConfig(augment=["shift", "rotate"]), {"image": Field(SHAPE, "float32")}, seed=seed)


RANDOM: dict[str, Callable[[int], Any]] = {
    "dropout": lambda seed: layers.Dropout(0.5, seed=seed, name="drop"),
    "noise": lambda seed: layers.GaussianNoise(1.0, seed=seed, name="noise"),
    "preprocessing": lambda seed: layers.RandomTranslation(0.4, 0.4, seed=seed, name="shift"),
    "data.augment": _augmentation,
}


@pytest.mark.parametrize("name", RANDOM)
def test_each_replica_draws_its_own_each_step_anew_and_the_same_again(strategy: Any, name: str) -> None:
    first = drawn(strategy, RANDOM[name])
    flat = first.reshape(2 * STEPS * SHARE, -1)
    assert len(np.unique(flat, axis=0)) == len(flat)  # no two examples alike, on any replica, in any step
    np.testing.assert_array_equal(drawn(strategy, RANDOM[name], steps_per_loop=1), first)


def test_the_first_replica_draws_as_one_device_and_another_seed_is_another_draw(strategy: Any) -> None:
    mirrored, alone = drawn(strategy, RANDOM["dropout"]), drawn(None, RANDOM["dropout"])
    np.testing.assert_array_equal(mirrored[0], alone[0])
    assert not np.array_equal(drawn(None, RANDOM["dropout"], seed=2), alone)
