"""Random operations of a pipeline are found wherever they are, and seeds with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from nameplate.engine.dataset_order import runs_python, unordered, unseeded

Make = Callable[[int | None], tf.data.Dataset]


def numbers() -> tf.data.Dataset:
    return tf.data.Dataset.range(8)


def noisy(seed: int | None) -> tf.data.Dataset:
    return numbers().map(lambda x: tf.cast(x, tf.float32) + tf.random.normal((), seed=seed))


def inside(seed: int | None) -> tf.data.Dataset:
    return numbers().interleave(lambda x: tf.data.Dataset.range(x).shuffle(3, seed=seed)).batch(2)


PIPELINES: dict[str, tuple[Make, str]] = {
    "shuffled": (lambda seed: numbers().shuffle(4, seed=seed), "ShuffleDataset"),
    "shuffled, then more": (
        lambda seed: numbers().shuffle(4, seed=seed).batch(2).prefetch(1).repeat(),
        "ShuffleDataset",
    ),
    "shuffled once": (
        lambda seed: numbers().shuffle(4, seed, reshuffle_each_iteration=False).cache(),
        "ShuffleDataset",
    ),
    "zipped": (lambda seed: tf.data.Dataset.zip(numbers(), numbers().shuffle(4, seed=seed)), "ShuffleDataset"),
    "mixed": (lambda seed: tf.data.Dataset.sample_from_datasets([numbers()] * 2, seed=seed), "RandomDataset"),
    "noisy": (noisy, "RandomStandardNormal"),
    "shuffled inside": (inside, "ShuffleDatasetV3"),
}


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a16_what_draws_without_a_seed_is_found(pipeline: str) -> None:
    make, operation = PIPELINES[pipeline]
    tf.random.set_seed(None)  # every test begins with a seed
    assert unseeded(make(None)) == [operation]
    assert unseeded(make(3)) == []
    assert not runs_python(make(3))


def test_a16_the_seed_of_the_process_counts() -> None:
    tf.random.set_seed(7)
    for make, _ in PIPELINES.values():
        assert unseeded(make(None)) == []


def test_a16_elements_that_may_overtake_each_other_are_found() -> None:
    def doubled(**options: Any) -> tf.data.Dataset:
        return numbers().map(lambda x: 2 * x, num_parallel_calls=2, **options).batch(2)

    options = tf.data.Options()
    options.deterministic = False
    parallel = {"num_parallel_calls": 2, "deterministic": False}
    assert unordered(doubled(deterministic=False))
    assert unordered(numbers().interleave(lambda x: tf.data.Dataset.range(x), **parallel))
    assert unordered(numbers().with_options(options).batch(2))
    assert not unordered(doubled())
    assert not unordered(doubled(deterministic=True))


def test_a16_what_python_gives_is_known_to_be() -> None:
    generated = tf.data.Dataset.from_generator(lambda: iter(range(3)), output_signature=tf.TensorSpec((), tf.int64))

    def called(x: Any) -> Any:
        return tf.numpy_function(lambda value: np.asarray(value), [x], tf.int64)

    for dataset in (generated, generated.batch(2), numbers().map(called)):
        assert runs_python(dataset)
        assert unseeded(dataset) == []
    assert not runs_python(numbers().map(lambda x: x + 1))
