"""Generated examples."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import tensorflow as tf

from nameplate.data.config import SyntheticConfig
from nameplate.data.dataset import Dataset, Output, TargetKind, describe
from nameplate.data.source import Example, bundle
from nameplate.data.splits import split

BANK = 61  # noise images, a prime number: the noise of an example is the difference of two of them
HELD_BYTES = 512 << 20  # largest content that `arrays` generates
PRIMES = (2654435761, 2246822519, 3266489917)  # large and odd, to spread the indices


class Synthetic:
    """A source whose example i is a function of the seed and of i: the patterns of its classes plus noise.

    The classes of an output occur evenly. Their patterns are added to every input, half of each by channel and half by
    position, so that a dense network and a pooled convolution can both learn them.
    """

    def __init__(self, config: SyntheticConfig, *, seed: int) -> None:
        random = np.random.RandomState(seed)
        shape, self._config, self.size = tuple(config.shape), config, config.size
        self._patterns = {
            (name, output): _patterns(random, config.classes, shape)
            for name in config.inputs
            for output in config.outputs
        }
        half = np.float32(config.noise / np.sqrt(2))  # so that the difference of two has the configured deviation
        self._bank = half * random.standard_normal((BANK, *shape)).astype(np.float32)
        self._shift = int(random.randint(1 << 30))

    def spec(self) -> Example:
        """Return the structure of one example: float32 inputs, int64 labels."""
        x = {name: tf.TensorSpec(self._config.shape, tf.float32) for name in self._config.inputs}
        y = {name: tf.TensorSpec((), tf.int64) for name in self._config.outputs}
        return bundle(x), bundle(y)

    def load(self, indices: tf.Tensor) -> Example:
        """Return the examples at `indices` (n,)."""
        return self._example(indices, self._tensors, tf.gather)

    def arrays(self) -> Example | None:
        """Return the whole content, unless it is larger than `HELD_BYTES`."""
        of_one = sum(self._bank[0].nbytes for _ in self._config.inputs)
        if of_one * self.size > HELD_BYTES:
            return None
        return self._example(np.arange(self.size), (self._patterns, self._bank), np.take)

    def _example(self, indices: Any, held: tuple[Any, Any], gather: Any) -> Example:
        """Return examples by the same arithmetic in NumPy and in TensorFlow, equal to float rounding."""
        patterns, bank = held
        labels = {
            name: self._hash(indices, rank) % self._config.classes for rank, name in enumerate(self._config.outputs)
        }
        inputs = {}
        for rank, name in enumerate(self._config.inputs):
            code = self._hash(indices, rank + len(labels))
            image = gather(bank, code % BANK, axis=0) - gather(bank, code // BANK % BANK, axis=0)
            for output, label in labels.items():
                image = image + gather(patterns[name, output], label, axis=0)
            inputs[name] = image
        return bundle(inputs), bundle(labels)

    def _hash(self, indices: Any, rank: int) -> Any:
        """Return a number from 0 to 2**31 - 1 for each index, different for each rank."""
        mixed = (indices + self._shift + rank * 7919) * PRIMES[rank % len(PRIMES)] % (2**61 - 1)
        return mixed // 2**17 % 2**31

    @functools.cached_property
    def _tensors(self) -> tuple[Any, Any]:
        with tf.init_scope(), tf.device("CPU:0"):
            return tf.nest.map_structure(tf.constant, (self._patterns, self._bank))


def open_synthetic(config: SyntheticConfig, *, seed: int) -> Dataset:
    """Return the synthetic data of a seed; its inputs share one shape, its outputs one number of classes."""
    outputs = {name: Output(config.classes, TargetKind.CLASSES) for name in config.outputs}
    parts = split(Synthetic(config, seed=seed), config)
    return describe(parts, inputs=list(config.inputs), outputs=outputs)


def _patterns(random: np.random.RandomState, classes: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return one pattern a class (classes, *shape) of variance 1: half by channel, half by position."""
    by_channel = random.standard_normal((classes, *[1] * (len(shape) - 1), shape[-1]))
    by_place = random.standard_normal((classes, *shape))
    return ((by_channel + by_place) / np.sqrt(2)).astype(np.float32)
