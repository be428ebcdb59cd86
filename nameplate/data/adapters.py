"""Data as users pass it (arrays, datasets, sources) as a source, and its division into steps."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nameplate.data.arrays import MappedArrays
from nameplate.data.batches import Batches, in_whole_calls
from nameplate.data.config import Resident
from nameplate.data.dataset import Column
from nameplate.data.errors import ByBatchError
from nameplate.data.feeds import Feed, feed_of, in_file_order
from nameplate.data.indexed import Indexed, is_indexed
from nameplate.data.source import Memory, Source, Stream, leaves, mapped, named
from nameplate.data.sparse import SparseRows, dense, in_floatx, sparse_rows
from nameplate.data.splits import take
from nameplate.errors import NameplateError, worded

BATCH = 32  # default examples a step, over all replicas together
Data = Any  # x, (x,), (x, y), (x, y, weight), a tf.data.Dataset of batches of these, or a Source


def is_dataset(data: Any) -> bool:
    """Say whether data is a `tf.data.Dataset`."""
    return isinstance(data, tf.data.Dataset)


def as_source(data: Data, name: str = "data") -> Source | Stream:
    """Return data in any of its forms as a source; errors call it `name`.

    Its examples have the structure that Keras passes to a `train_step`. Arrays of floats become `floatx`, as in Keras.

    Raises:
        ByBatchError: data of another form, such as a generator, or ragged.
        NameplateError: data without examples, or with parts of different lengths.
    """
    if is_dataset(data):
        _parts(data.element_spec, name)
        _refuse_without_rows(data.element_spec, name)
        return Stream(dense(data, name), batched=True)
    if isinstance(data, Source | Stream):
        return data
    if is_indexed(data):
        return Indexed(data, name)
    if not isinstance(data, tuple | list | dict) and not _is_array(data):
        raise ByBatchError(
            f"{name}: the order of a {type(data).__name__} is known only to Python, batch by batch; "
            "here give x, (x, y), (x, y, sample_weight), a tf.data.Dataset of batches, or a source with random access"
        )
    arrays = _packed(data, name)
    if not any(isinstance(array, SparseRows | np.memmap) for array in leaves(arrays)):
        return Memory(arrays)

    def column(array: Any) -> Column | SparseRows:
        return array if isinstance(array, SparseRows) else Column(name, array, _dtype(array), as_it_is=True)

    return MappedArrays(mapped(column, arrays))


def split_off(source: Source | Stream, share: float) -> tuple[Source, Source]:
    """Split a source as `model.fit` does: the last `share` of the examples is for validation.

    Raises:
        NameplateError: the source is a dataset, or one side would have no examples.
    """
    if isinstance(source, Stream):
        raise NameplateError(
            f"validation_split={share}: a tf.data.Dataset cannot be split; give arrays, or validation_data=..."
        )
    if not 0 < share < 1:
        raise NameplateError(f"validation_split={share}: a share of the examples, between 0 and 1")
    first = int(np.floor(source.size * (1 - share)))
    if not 0 < first < source.size:
        raise NameplateError(f"validation_split={share} of {source.size} examples leaves one side empty")
    return take(source, slice(first)), take(source, slice(first, source.size))


def batch_for(source: Source | Stream, batch: int | None, steps: int | None) -> int:
    """Return the examples a step: `batch` if given, else what divides all into `steps`, as Keras does, else 32."""
    if batch or not steps or isinstance(source, Stream):
        return batch or BATCH
    return -(-source.size // steps)


def batches_of(
    source: Source | Stream,
    batch: int,
    replicas: int,
    *,
    steps: int | None = None,
    steps_per_epoch: int | None = None,
) -> Batches:
    """Return the division of the source into steps; a dataset of unknown length or batch size is counted, once.

    Counting stops one past `steps`, the steps of the run, since the dataset may be infinite: the run ends before such
    an epoch does. An epoch ends after `steps_per_epoch`; in a dataset known to be infinite it is that many steps, or
    all `steps` of the run.

    Raises:
        ByBatchError: batches of different sizes; more steps an epoch than the data has.
        NameplateError: no examples; an infinite dataset without a number of steps.
    """
    if isinstance(source, Stream) and source.endless:
        size, batch = _infinite_size(source, batch, steps_per_epoch or steps)
    else:
        size, batch = _size_and_batch(source, batch, steps)
        size = size if steps_per_epoch is None else _cut(size, batch, steps_per_epoch)
    if not size:
        raise NameplateError("the dataset has no examples")
    return Batches(size, batch, replicas)


def evaluation_feed(
    source: Source | Stream, batch: int | None, replicas: int, *, steps: int | None = None, per_call: int = 1
) -> Feed:
    """Return the feed of an evaluation: in file order, in steps of `batch` unless the data is batched already.

    It has so many `steps`, as Keras takes them in whole calls of `per_call`, or those that the data has, with a warning
    if they are fewer.
    """
    batch = batch_for(source, batch, steps)
    steps = within_limit(source, batch, steps)
    taken = steps and in_whole_calls(steps, per_call)
    if isinstance(source, Stream) and taken:
        source = Stream(source.dataset.take(taken if source.batched else taken * batch), batched=source.batched)
    own = batches_of(source, batch, replicas)
    if steps and own.steps < steps:
        warnings.warn(f"Your input ran out of data: it has {own.steps} of the {steps} steps", stacklevel=2)  # as Keras
    if taken and taken < own.steps:
        own = Batches(taken * own.batch, own.batch, replicas)
    return feed_of(source, own, in_file_order, Resident.auto)


def example_of(source: Source | Stream) -> tuple[Any, Any, Any]:
    """Return x, y and weight of one symbolic batch: KerasTensors (None, ...), or None."""
    symbolic = mapped(lambda leaf: keras.KerasTensor((None, *leaf.shape), leaf.dtype.name), source.spec())
    return _parts(symbolic, "data")


def first_inputs(source: Source | Stream, count: int = 32) -> dict[str, np.ndarray]:
    """Return the inputs of the first `count` examples by name, each (count, ...); of a stream of its first element."""
    if isinstance(source, Stream):
        example = next(iter(source.dataset.take(1)))
    else:
        example = source.load(tf.range(min(count, source.size), dtype=tf.int64))
    return {name: np.asarray(leaf) for name, leaf in named(_parts(example, "data")[0], "x").items()}


def within_limit(source: Source | Stream, batch: int, steps: int | None) -> int | None:
    """Return the steps of an epoch, capped at `keras.config.max_steps_per_epoch()` with a warning.

    The batch size stays, even where Keras would derive a larger one from the number of steps.
    """
    limit = keras.config.max_steps_per_epoch()
    if not limit or (steps and steps <= limit):
        return steps
    held = source.held(limit + 1) if isinstance(source, Stream) else -(-source.size // batch)
    if steps is None and held is not None and held <= limit:
        return None
    warnings.warn(f"keras.config.max_steps_per_epoch() ends every epoch after {limit} steps", stacklevel=2)
    return limit


def refuse_unclassed(example: tuple[Any, Any, Any]) -> None:
    """Refuse `class_weight` for data without exactly one target; `example` is what `example_of` returns."""
    targets = len(leaves(example[1]))
    if targets != 1:
        raise NameplateError(
            f"class_weight: the data has {targets or 'no'} targets, and class weights are for exactly one. "
            "Give sample_weight, one for each target"
        )


def _parts(example: Any, name: str) -> tuple[Any, Any, Any]:
    """Return x, y and weight of an example in any structure."""
    if isinstance(example, tuple | list) and len(example) not in (1, 2, 3):
        raise NameplateError(f"{name}: examples of {len(example)} parts; give x, (x,), (x, y) or (x, y, weight)")
    parts: tuple[Any, Any, Any] = keras.utils.unpack_x_y_sample_weight(example)
    return parts


def _packed(data: Any, name: str) -> Any:
    """Return arrays in the structure of an example, as Keras packs them.

    One weight an example becomes one for each of several targets.
    """
    example = _arrays(data, name) if isinstance(data, tuple | list) else (_arrays(data, name),)
    x, y, weight = _parts(example, name)
    if y is None and weight is not None:
        raise NameplateError(f"{name}: weights without targets; give (x, y, sample_weight)")
    if isinstance(y, tuple | dict) and not isinstance(weight, tuple | dict | None):
        weight = mapped(lambda _: weight, y)
    if not leaves(x):
        raise ByBatchError(f"{name}: x has no arrays, so that nothing says how many examples there are")
    lengths = [len(array) if array.ndim else 0 for array in leaves((x, y, weight))]
    if len(set(lengths)) != 1 or not lengths[0]:
        shown = f"{lengths[:8]}"[:-1] + (", ...]" if len(lengths) > 8 else "]")
        raise NameplateError(
            f"{name}: {len(example)} parts whose arrays have {shown} examples; "
            "give x, (x, y) or (x, y, sample_weight), arrays all of the same length, at least 1"
        )
    return keras.utils.pack_x_y_sample_weight(x, y, weight)


def _refuse_without_rows(spec: Any, name: str) -> None:
    """Refuse elements of a dataset whose rows a graph cannot slice: of ragged tensors, or of unknown rank."""
    ragged = [leaf for leaf in leaves(spec) if isinstance(leaf, tf.RaggedTensorSpec)]
    unknown = [leaf for leaf in leaves(spec) if isinstance(leaf, tf.TensorSpec) and not leaf.shape.rank]
    if ragged or unknown or not leaves(spec):
        raise ByBatchError(f"{name}: elements of {(ragged or unknown or [spec])[0]} cannot be divided in a graph")


def _arrays(structure: Any, name: str) -> Any:
    """Return a structure whose leaves are arrays; lists become tuples, since tf.data reads a list as a tensor."""
    if isinstance(structure, dict):
        return {key: _arrays(part, name) for key, part in structure.items()}
    if isinstance(structure, tuple | list):
        return tuple(_arrays(part, name) for part in structure)
    return None if structure is None else _array(structure, name)


def _is_array(leaf: Any) -> bool:
    """Say whether a leaf is an array of any kind, for `_array` to convert or refuse."""
    return hasattr(leaf, "__array__") or hasattr(leaf, "shape")


def _array(leaf: Any, name: str) -> np.ndarray | SparseRows:
    """Return a leaf as an array: floats in Keras' floatx, a pandas column as (n, 1), text unchanged."""
    if isinstance(leaf, tf.RaggedTensor):
        raise ByBatchError(f"{name}: the rows of a ragged tensor differ in size; pad them, x.to_tensor()")
    if (rows := sparse_rows(leaf)) is not None:
        return rows
    if isinstance(leaf, np.memmap):
        return leaf  # its rows are read, and floats converted, when they are needed
    array = np.asarray(leaf)
    if array.dtype == object and not all(isinstance(entry, str | bytes) for entry in array.flat):
        raise NameplateError(f"{name}: {type(leaf).__name__} is not an array of numbers or text")
    if array.ndim == 1 and type(leaf).__module__.startswith("pandas."):
        array = array[:, None]  # as Keras does
    return in_floatx(array)


def _dtype(array: np.ndarray) -> np.dtype:
    return in_floatx(np.empty(0, array.dtype)).dtype


def _infinite_size(source: Stream, batch: int, steps: int | None) -> tuple[int, int]:
    if steps is None:
        raise NameplateError(
            "the dataset is infinite: give the steps to train, "
            + worded(
                keys="fit.steps=...",
                arguments="steps=..., or those of an epoch, steps_per_epoch=... or validation_steps=...",
            )
        )
    if source.batched:
        batch = source.batch or len(leaves(next(iter(source.dataset)))[0])
    return steps * batch, batch


def _size_and_batch(source: Source | Stream, batch: int, steps: int | None) -> tuple[int, int]:
    """Return the examples of an epoch and of a step; a batched source keeps its batches."""
    if not isinstance(source, Stream):
        return source.size, batch
    limit = None if steps is None else steps + 1
    if not source.batched:
        counted = source.dataset if limit is None else source.dataset.take(limit * batch)
        return source.size if source.size is not None else sum(1 for _ in counted), batch
    if source.batch and source.size is not None:  # the dataset declares one batch size: nothing to read
        return source.size * source.batch, source.batch
    sizes = source.sizes(limit)
    if not sizes or any(size != sizes[0] for size in sizes[:-1]) or sizes[-1] > sizes[0]:
        raise ByBatchError(
            f"the dataset's batches have {sorted(set(sizes)) or 'no'} examples; "
            "all must have the same number; only the last may have fewer"
        )
    return sum(sizes), sizes[0]


def _cut(size: int, batch: int, steps: int) -> int:
    held = -(-size // batch)
    if steps > held:
        raise ByBatchError(
            f"{steps} steps an epoch: the data has {size} examples, {held} steps of {batch}; "
            f"at most {held}, or a dataset that repeats"
        )
    return min(size, steps * batch)
