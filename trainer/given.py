"""Data as users give it, arrays, datasets and sources, and how it falls into steps."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from models.errors import NameplateError
from trainer.config.data import Resident
from trainer.data.batches import Batches
from trainer.data.feed import Feed, feed_of, in_file_order
from trainer.data.memory import Memory
from trainer.data.source import Source, Stream

BATCH = 32  # examples a step, over all replicas together, where nothing is said
Data = Any  # (x, y), (x, y, weight), a tf.data.Dataset of batches, or a Source


def as_source(data: Data, name: str = "data") -> Source | Stream:
    """Return data in any of its forms as a source; `name` is what an error calls it.

    Raises:
        NameplateError: it is none of these forms, holds no examples, or its parts differ in length.
    """
    if isinstance(data, tf.data.Dataset):
        return Stream(data, batched=True)
    if isinstance(data, tuple | list):
        arrays = _tuples(tf.nest.map_structure(np.asarray, tuple(data)))
        lengths = [len(array) if array.ndim else 0 for array in tf.nest.flatten(arrays)]
        if len(arrays) not in (2, 3) or not lengths or len(set(lengths)) != 1 or not lengths[0]:
            raise NameplateError(
                f"{name}: {len(arrays)} parts whose arrays have {lengths} examples; "
                "give (x, y) or (x, y, sample_weight), all of the same length, at least 1"
            )
        return Memory(arrays)
    if isinstance(data, Source | Stream):
        return data
    raise NameplateError(
        f"{name}: {type(data).__name__} cannot be trained on; give (x, y), (x, y, sample_weight), "
        "a tf.data.Dataset of batches, or a source with random access; "
        "tf.data.Dataset.from_generator makes one of a generator"
    )


def batches_of(
    source: Source | Stream,
    batch: int,
    replicas: int,
    *,
    steps: int | None = None,
    steps_per_epoch: int | None = None,
    even: bool = True,
) -> Batches:
    """Return how the source falls into steps; a dataset whose length or batches are not known is counted, once.

    An epoch is cut short after `steps_per_epoch`. Of a dataset without end it is that many steps, or all `steps` of the
    run. Where `even`, a step divides among the replicas.

    Raises:
        NameplateError: batches of different sizes, or that do not divide; no examples; no end and no number of steps;
            more steps an epoch than there are.
    """
    if isinstance(source, Stream) and source.endless:
        size, batch = _of_endless(source, batch, steps_per_epoch or steps)
    else:
        size, batch = _size_and_batch(source, batch)
        size = size if steps_per_epoch is None else _cut(size, batch, steps_per_epoch)
    own = isinstance(source, Stream) and source.batched and not (source.endless or source.batch)
    if even and own and size == batch:
        batch = -(-batch // replicas) * replicas  # the only batch may be smaller than others would be
    if even:
        _refuse_uneven(batch, replicas)
    if not size:
        raise NameplateError("the dataset has no examples")
    return Batches(size, batch, replicas)


def evaluation_feed(source: Source | Stream, batch: int, replicas: int, *, steps: int | None = None) -> Feed:
    """Return the feed of an evaluation, in order, in steps of `batch` where the data has no batches of its own."""
    own = batches_of(source, batch, replicas, steps_per_epoch=steps, even=False)
    return feed_of(source, own, in_file_order, Resident.AUTO)


def example_of(source: Source | Stream) -> tuple[Any, ...]:
    """Return the symbolic form of one batch: (x, y[, weight]) of KerasTensors, (None, ...)."""
    return tuple(
        tf.nest.map_structure(lambda leaf: keras.KerasTensor((None, *leaf.shape), leaf.dtype.name), part)
        for part in source.spec()
    )


def refuse_unlike(source: Source | Stream, held_out: Source | Stream | None) -> None:
    """Refuse validation data of another form than the training data: it would fail only after an epoch."""
    if held_out is None:
        return
    forms = [
        tf.nest.map_structure(lambda leaf: (tuple(leaf.shape), leaf.dtype.name), tuple(each.spec())[:2])
        for each in (source, held_out)
    ]
    trained, validated = (str(form) for form in forms)
    if [shape for shape, _ in _leaves(forms[0])] != [shape for shape, _ in _leaves(forms[1])]:
        raise NameplateError(f"validation_data has examples of {validated}, the training data of {trained}")


def _tuples(structure: Any) -> Any:
    """Return a structure with tuples for its lists, which tf.data would take for tensors."""
    if isinstance(structure, dict):
        return {key: _tuples(each) for key, each in structure.items()}
    return tuple(map(_tuples, structure)) if isinstance(structure, tuple | list) else structure


def _of_endless(source: Stream, batch: int, steps: int | None) -> tuple[int, int]:
    if steps is None:
        raise NameplateError(
            "the dataset has no end: say how many steps to train, steps=... or fit.steps=..., "
            "or in trainer.fit how many make an epoch, steps_per_epoch=... or validation_steps=..."
        )
    if source.batched:
        batch = source.batch or len(tf.nest.flatten(next(iter(source.dataset)))[0])
    return steps * batch, batch


def _size_and_batch(source: Source | Stream, batch: int) -> tuple[int, int]:
    """Return the examples of an epoch and of a step; batches of the source's own are what they are."""
    if not isinstance(source, Stream):
        return source.size, batch
    if not source.batched:
        return source.size if source.size is not None else sum(1 for _ in source.dataset), batch
    if source.batch and source.size is not None:  # all are as large: nothing to look at
        return source.size * source.batch, source.batch
    sizes = [len(tf.nest.flatten(each)[0]) for each in source.dataset]
    if not sizes or any(size != sizes[0] for size in sizes[:-1]) or sizes[-1] > sizes[0]:
        raise NameplateError(
            f"the dataset's batches have {sorted(set(sizes)) or 'no'} examples; "
            "all must have the same number, and only the last may have fewer"
        )
    return sum(sizes), sizes[0]


def _cut(size: int, batch: int, steps: int) -> int:
    held = -(-size // batch)
    if steps > held:
        raise NameplateError(
            f"steps_per_epoch={steps}: the data has {size} examples, {held} steps of {batch}; "
            f"at most {held}, or a dataset that repeats"
        )
    return min(size, steps * batch)


def _leaves(form: Any) -> list[tuple[Any, str]]:
    if isinstance(form, dict):
        return [leaf for key in sorted(form) for leaf in _leaves(form[key])]
    if isinstance(form, tuple) and len(form) == 2 and isinstance(form[1], str):
        return [form]
    return [leaf for each in form for leaf in _leaves(each)]


def _refuse_uneven(batch: int, replicas: int) -> None:
    if batch % replicas:
        below, over = batch // replicas * replicas, -(-batch // replicas) * replicas
        raise NameplateError(
            f"a batch of {batch} does not divide among {replicas} replicas; the nearest: {below or over} or {over}"
        )
