"""Damaged examples: all of them found before training, and left out."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from nameplate.arguments import checked
from nameplate.data.adapters import as_source
from nameplate.data.errors import DataError, data_error
from nameplate.data.source import Source, Stream, absent, leaves, named
from nameplate.data.splits import name_of, part_of, take

_CHUNK = 32  # examples that are read at a time
_SHOWN = 20  # damaged examples that an error lists

Report = Callable[[int, int], None]  # examples read, and all of them


@dataclass(frozen=True)
class Damage:
    """An example that cannot be used."""

    index: int  # in its source
    name: str  # the path of a file, a record of a file, or `example 5`
    why: str

    def __str__(self) -> str:
        """Return the name and the reason as a line."""
        return f"{self.name}: {self.why}"


@checked
def damaged(data: Any, *, classes: Mapping[str, int] | None = None, report: Report | None = None) -> list[Damage]:
    """Read every example once, in parallel, and return those that cannot be used, by their index.

    Damaged are examples that cannot be read or decoded, have another form than the first, hold NaN or infinite values,
    or have a label outside its classes. `nameplate.data.without(data, damaged)` leaves them out.

    Args:
        data: what `fit` takes, with random access.
        classes: the number of classes of each target that is one, by name; a single target may have any name.
        report: called now and then with the number of examples read, and of all.

    Raises:
        DataError: a stream, which has no random access.
    """
    source = _with_access(data, "damaged")
    found: list[Damage] = []
    chunks = tf.data.Dataset.range(0, source.size, _CHUNK).map(
        lambda start: (start, _faults(source, _indices(source, start), classes or {})),
        num_parallel_calls=os.cpu_count(),
        deterministic=False,
    )
    unread = set(range(0, source.size, _CHUNK))
    for start, faults in chunks.ignore_errors(log_warning=False).as_numpy_iterator():
        unread.discard(int(start))
        found += _named_faults(source, int(start), faults)
        if report:
            report(source.size - len(unread) * _CHUNK, source.size)
    # Traced once: eagerly each example would take some 0.1 s.
    one = tf.function(
        lambda indices: _faults(source, indices, classes or {}), input_signature=[tf.TensorSpec([1], tf.int64)]
    )
    for start in sorted(unread):
        for index in range(start, min(start + _CHUNK, source.size)):
            found += _alone(source, index, one)
    return sorted(found, key=lambda damage: damage.index)


@checked
def without(data: Any, damaged: Sequence[Damage] | Sequence[int]) -> Source:
    """Return the examples of a source without these, in their order.

    Raises:
        DataError: a stream, an index that the data does not have, or nothing is left.
    """
    source = _with_access(data, "without")
    indices = sorted({each.index if isinstance(each, Damage) else each for each in damaged})
    if indices and not 0 <= indices[0] <= indices[-1] < source.size:
        raise DataError(f"damaged: the examples are 0 to {source.size - 1}, and {indices[-1]} is not one of them")
    if len(indices) == source.size:
        raise DataError(f"all {source.size} examples are damaged; none are left")
    return take(source, np.delete(np.arange(source.size), indices)) if indices else source


def worded(found: Mapping[str, Sequence[Damage]], sizes: Mapping[str, int]) -> Iterator[str]:
    """Yield the damaged examples of each part of the data, one a line, the first ones of many."""
    for part, damages in found.items():
        if not damages:
            continue
        yield f"{len(damages):,} of the {sizes[part]:,} examples of {part} are damaged:"
        yield from (f"  {damage}" for damage in damages[:_SHOWN])
        if len(damages) > _SHOWN:
            yield f"  and {len(damages) - _SHOWN:,} more"


def _with_access(data: Any, verb: str) -> Source:
    source = as_source(data)
    if isinstance(source, Stream):
        raise DataError(f"{verb}: the examples of a stream come one after another; random access is needed")
    return source


def _indices(source: Source, start: tf.Tensor) -> tf.Tensor:
    return tf.range(start, tf.minimum(start + _CHUNK, tf.constant(source.size, tf.int64)))


def _faults(source: Source, indices: tf.Tensor, classes: Mapping[str, int]) -> dict[str, tf.Tensor]:
    """Return what may be wrong with examples that can be read, and whether it is for each: bool (n,)."""
    example = source.load(indices)
    parts = example if isinstance(example, tuple) else (example,)
    finite = tf.ones_like(indices, tf.bool)
    for leaf in leaves(parts):
        if leaf.dtype.is_floating:
            flat = tf.reshape(leaf, [tf.shape(indices)[0], -1])
            finite &= tf.reduce_all(tf.math.is_finite(flat), axis=1)
    faults = {"has NaN or infinite values": ~finite}
    for name, target in _targets(parts).items():
        units = classes.get(name) or (next(iter(classes.values())) if len(classes) == 1 else None)
        if units is not None and target.dtype.is_integer:
            flat = tf.reshape(target, [tf.shape(indices)[0], -1])
            outside = tf.reduce_any((flat < 0) | (flat >= tf.cast(units, flat.dtype)), axis=1)
            faults[f"has a label outside the classes 0 to {units - 1}"] = outside
    return faults


def _targets(parts: tuple[Any, ...]) -> dict[str, Any]:
    if len(parts) < 2 or isinstance(parts[1], tuple | list):
        return {}
    return {name: leaf for name, leaf in named(parts[1], "y").items() if not absent(leaf)}


def _named_faults(source: Source, start: int, faults: Mapping[str, np.ndarray]) -> Iterator[Damage]:
    for place in np.flatnonzero(np.any(list(faults.values()), axis=0)).tolist():
        why = " and ".join(fault for fault, holds in faults.items() if holds[place])
        yield Damage(start + place, name_of(source, start + place), why)


def _alone(source: Source, index: int, faults_of: Callable[[tf.Tensor], dict[str, tf.Tensor]]) -> Iterator[Damage]:
    """Yield what is wrong with one example of those that could not be read together."""
    try:
        faults = faults_of(tf.constant([index], tf.int64))
    except (tf.errors.OpError, DataError) as error:
        yield Damage(index, name_of(source, index), _why(source, index, error))
        return
    yield from _named_faults(source, index, {fault: np.asarray(holds) for fault, holds in faults.items()})


def _why(source: Source, index: int, error: Exception) -> str:
    """Return why an example cannot be read, without its name: the first line of the error that reading it raises."""
    own, place = part_of(source, index)
    if hasattr(own, "why") and (reason := own.why(place)):
        return str(reason)
    message = str(data_error(error) or error).splitlines()[0]
    return _plain(message).removeprefix(name_of(source, index)).lstrip(": ")


def _plain(message: str) -> str:
    """Return an error of TensorFlow without the names of its operations."""
    return re.sub(r"\{\{.*?\}\}|\[Op:.*|\(op: .*", "", message).strip()


def decoding_error(read: Callable[[], bytes]) -> str:
    """Return why the bytes of an image cannot be read or decoded; empty if they can."""
    try:
        tf.io.decode_image(read(), expand_animations=False)
    except tf.errors.OpError as error:
        return _plain(str(error.message).splitlines()[0])
    except (DataError, OSError) as error:
        return error.strerror or str(error) if isinstance(error, OSError) else str(error)
    return ""
