"""The division of the examples into training, validation and test."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from nameplate.data.config import DataConfig
from nameplate.data.errors import refuse
from nameplate.data.source import Example, Memory, Source, Stream, mapped, named


@dataclass(frozen=True)
class Splits:
    """The sources of a run; None for a part without examples."""

    train: Source | Stream
    validation: Source | Stream | None = None
    test: Source | Stream | None = None


class Subset:
    """Some examples of another source, in a given order."""

    def __init__(self, source: Source, positions: np.ndarray | slice) -> None:
        self._source = source
        self._positions = (
            np.arange(source.size)[positions] if isinstance(positions, slice) else positions.astype(np.int64)
        )
        self.size = len(self._positions)

    def spec(self) -> Example:
        """Return the structure of one example."""
        return self._source.spec()

    def load(self, indices: tf.Tensor) -> Example:
        """Return the examples at `indices` (n,) of this subset."""
        return self._source.load(tf.gather(self._tensor, indices))

    def arrays(self) -> Example | None:
        """Return the content of the subset, if that of the whole source can be held in memory."""
        whole = self._source.arrays()
        return None if whole is None else mapped(lambda leaf: leaf[self._positions], whole)

    def labels(self, target: str) -> dict[str, np.ndarray]:
        """Return what `labels_of` does, of the examples of this subset."""
        return {name: array[self._positions] for name, array in labels_of(self._source, target).items()}

    def part_of(self, index: int) -> tuple[Source, int]:
        """Return the source that an example comes from, and its index there."""
        return part_of(self._source, int(self._positions[index]))

    @functools.cached_property
    def _tensor(self) -> tf.Tensor:
        with tf.init_scope(), tf.device("CPU:0"):
            return tf.constant(self._positions)


def part_of(source: Source, index: int) -> tuple[Source, int]:
    """Return the source that an example was taken from first, and its index there."""
    return source.part_of(index) if isinstance(source, Subset) else (source, index)


def labels_of(source: Source, target: str) -> dict[str, np.ndarray]:
    """Return the targets of all examples by name, (size, ...), where that needs no reading; a bare one is `target`."""
    if isinstance(source, Memory):
        example = source.arrays()
        targets = named(example[1], target) if isinstance(example, tuple) and len(example) > 1 else {}
        return {name: array for name, array in targets.items() if isinstance(array, np.ndarray)}
    if isinstance(source, Subset):
        return source.labels(target)
    return {target: source.labels()} if hasattr(source, "labels") else {}


def name_of(source: Source, index: int) -> str:
    """Return what an example is called: the path of its file if the source knows it, else its number."""
    own, place = part_of(source, index)
    return str(own.name(place)) if hasattr(own, "name") else f"example {place}"


def take(source: Source, positions: np.ndarray | slice) -> Source:
    """Return the examples at `positions`, (n,) or a slice, as a source."""
    if isinstance(source, Memory):
        return Memory(mapped(lambda leaf: leaf[positions], source.arrays()))
    return Subset(source, positions)


def first(source: Source | Stream, limit: int) -> Source | Stream:
    """Return the first `limit` examples of a source, or all if it has fewer."""
    if isinstance(source, Stream):
        return Stream(source.dataset.take(limit), batched=source.batched)
    return take(source, np.arange(min(limit, source.size)))


def split(
    source: Source,
    config: DataConfig,
    *,
    validation: Source | Stream | None = None,
    test: Source | Stream | None = None,
    groups: np.ndarray | None = None,
) -> Splits:
    """Hold out the shares of `source` that the configuration asks for, unless a source is given for that part.

    Which examples are held out depends only on `data.split_seed`, the shares, the folds and the number of examples.
    Every example is in exactly one part. `groups`, (size,), are not divided between folds.

    Raises:
        DataError: the shares leave no example to train on, or there are fewer examples or groups than folds.
    """
    if config.folds is not None:
        return _one_fold(source, config, config.folds, validation, test, groups)
    given = {"validation": validation, "test": test}
    shares = {key: 0.0 if part is not None else getattr(config, key) for key, part in given.items()}
    counts = held_out(source.size, shares)
    if not any(counts.values()):
        return Splits(source, validation, test)
    # RandomState, because NumPy guarantees that its stream never changes, and neither must the held-out examples.
    order = np.random.RandomState(config.split_seed).permutation(source.size)
    start = 0
    for key, count in counts.items():
        if count:
            given[key] = take(source, np.sort(order[start : start + count]))
        start += count
    return Splits(take(source, np.sort(order[start:])), **given)


def _one_fold(
    source: Source,
    config: DataConfig,
    count: int,
    validation: Source | Stream | None,
    test: Source | Stream | None,
    groups: np.ndarray | None,
) -> Splits:
    """Hold out the test share, and of the rest one fold of `count` for validation."""
    if validation is not None:
        refuse(["data.folds: the data has a validation part of its own; leave one of the two out"])
    order = np.random.RandomState(config.split_seed).permutation(source.size)
    tested = held_out(source.size, {"test": 0.0 if test is not None else config.test})["test"]
    rest = np.sort(order[tested:])
    labels = rest if groups is None else groups[rest]
    kinds = len(np.unique(labels))
    if kinds < count:
        what = "examples" if groups is None else "groups"
        refuse([f"data.folds: {count} folds of {kinds} {what}; at most {kinds}"])
    fold = fold_of_each(labels, count, seed=config.split_seed)
    training, validating = (rest[chosen] for chosen in (fold != config.fold, fold == config.fold))
    test = take(source, np.sort(order[:tested])) if tested else test
    return Splits(take(source, training), take(source, validating), test)


def fold_of_each(labels: np.ndarray, count: int, *, seed: int) -> np.ndarray:
    """Return the fold of each example, int64 (size,) from 0: those with one label, (size,), are in one fold.

    The folds have as equal numbers of examples as the labels allow; `seed` chooses which are together.
    """
    kinds, own = np.unique(labels, return_inverse=True)
    # RandomState, because NumPy guarantees that its stream never changes, and neither must the folds.
    order = np.random.RandomState(seed).permutation(len(kinds))
    fold = np.empty(len(kinds), np.int64)
    fold[order] = _evenly(np.bincount(own)[order], count)
    return fold[own]


def _evenly(sizes: np.ndarray, count: int) -> np.ndarray:
    """Return the fold of each group: the largest first, each to the fold that has the fewest examples."""
    held, fold = np.zeros(count, np.int64), np.empty(len(sizes), np.int64)
    for group in np.argsort(-sizes, kind="stable"):
        fold[group] = np.argmin(held)
        held[fold[group]] += sizes[group]
    return fold


def held_out(size: int, shares: dict[str, float]) -> dict[str, int]:
    """Return the number of examples of each share, rounded up.

    Raises:
        DataError: nothing would be left to train on.
    """
    # Rounding first keeps 0.07 of 100 at 7: in floats the product is 7.000000000000001.
    counts = {key: int(np.ceil(round(share * size, 6))) for key, share in shares.items()}
    if sum(counts.values()) >= size:
        asked = ", ".join(f"data.{key}={shares[key]} takes {count}" for key, count in counts.items() if count)
        refuse([f"{size} examples: {asked or 'none'}, and none are left to train on; use smaller shares"])
    return counts
