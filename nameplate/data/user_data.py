"""`examples`: what a user has, as a source; `folds` and `balanced`: other sources made of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nameplate.arguments import checked
from nameplate.data.adapters import as_source
from nameplate.data.errors import DataError
from nameplate.data.indexed import Indexed, Select, is_indexed, no_choice
from nameplate.data.source import Example, Memory, Source, Stream, leaves
from nameplate.data.sparse import in_floatx
from nameplate.data.specs import TABLES
from nameplate.data.splits import fold_of_each, labels_of, take
from nameplate.data.table_files import INSTALL
from nameplate.naming.names import did_you_mean

Keys = str | Sequence[str] | None  # of a dict: one, or several by name
_CHUNK = 1024  # examples that are read at a time for their targets


@checked
def examples(
    data: Any,
    *,
    inputs: Keys = None,
    targets: Keys = None,
    sample_weight: str | None = None,
    batched: bool = True,
    workers: int = 1,
) -> Source | Stream:
    """Return data of any kind as a source of examples, for `fit`, `evaluate`, `predict`, `folds` and `data=custom`.

    Args:
        data: an object with `__len__` and `__getitem__` (a dataset in PyTorch's style, a Hugging Face `Dataset`, a
            Grain `MapDataset`); a `tf.data.Dataset`; a table (pandas, Polars, pyarrow, or the path of a Parquet,
            Arrow or Feather file); arrays as `fit` takes them; or a source.
        inputs: which values are inputs, where examples are dicts or rows of a table: one key for its value by itself,
            several for a dict of them by name.
        targets: which are targets, in the same way; None: none.
        sample_weight: which is the weight of an example; None: none.
        batched: the elements of a `tf.data.Dataset` are batches; False: single examples.
        workers: threads that call `__getitem__`. More than one needs an object that several threads may read at once.

    Raises:
        DataError: no examples, unknown keys, dicts without a choice of inputs, weights without targets, missing values
            in a table, or examples of different forms.
    """
    if workers < 1:
        raise DataError(f"workers={workers}: at least 1 thread")
    if sample_weight and not targets:
        raise DataError(f"sample_weight={sample_weight!r} without targets, which it weighs; give targets=... too")
    wanted = {"inputs": inputs, "targets": targets, "sample_weight": sample_weight}
    if is_table(data):
        return Memory(table_columns(data, **wanted))
    if isinstance(data, tf.data.Dataset):
        select = _selection(data.element_spec, wanted)
        return Stream(data.map(lambda *parts: select(*parts), num_parallel_calls=tf.data.AUTOTUNE), batched=batched)
    if is_indexed(data):
        return Indexed(data, select=_selection(data[0], wanted) if len(data) else None, workers=workers)
    if isinstance(data, dict) and inputs is not None:
        return as_source(_selection(data, wanted)(data))
    if chosen := [key for key, names in wanted.items() if names]:
        raise DataError(f"{chosen[0]}: chosen from dicts, and the examples of a {type(data).__name__} are not dicts")
    return as_source(data)


def _selection(item: Any, wanted: dict[str, Keys]) -> Select:
    """Return what takes x, y and weights out of examples like this one: the value of one key, or a dict of several."""
    chosen = [key for key, names in wanted.items() if names]
    if not isinstance(item, dict):
        if chosen:
            raise DataError(f"{chosen[0]}: chosen from dicts, and an example is a {type(item).__name__}")
        return lambda *parts: parts if len(parts) > 1 else parts[0]
    _refuse_unknown(item, wanted)
    used = [names for names in wanted.values() if names]
    return lambda item: tuple(
        item[names] if isinstance(names, str) else {name: item[name] for name in names} for names in used
    )


def _refuse_unknown(keys: Any, wanted: dict[str, Keys]) -> None:
    known = [str(key) for key in keys]
    if not wanted.get("inputs"):
        raise DataError(no_choice(known))
    problems = [
        f"{key}: the examples have no {name!r}; they have {', '.join(known)}.{did_you_mean(name, known)}"
        for key, names in wanted.items()
        for name in ([names] if isinstance(names, str) else names or ())
        if name not in known
    ]
    if problems:
        raise DataError("\n".join(problems))


def is_table(data: Any) -> bool:
    """Say whether data is the path of a table, or an object with columns: of pandas, Polars or pyarrow."""
    columns = hasattr(data, "__arrow_c_stream__") or type(data).__module__.startswith("pandas.")
    return isinstance(data, str | Path) or (columns and not is_indexed(data))


def _table(data: Any) -> Any:
    """Return the pyarrow table of a file or of an object with columns."""
    path = Path(data).expanduser() if isinstance(data, str | Path) else None
    if path is not None and path.suffix.lower() not in TABLES[1:]:
        raise DataError(f"{path}: not a table; files {', '.join(TABLES[1:])}")
    if path is not None and not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        import pyarrow
        from pyarrow import feather, parquet
    except ImportError as error:
        raise DataError(INSTALL) from error
    try:
        if path is None:
            return pyarrow.table(data)
        return parquet.read_table(path) if path.suffix.lower() == ".parquet" else feather.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path or type(data).__name__} cannot be read as a table: {error}") from error


def table_columns(data: Any, **wanted: Keys) -> Example:
    """Return columns of a table as arrays (rows, ...), in the structure of an example; arguments as `examples`."""
    table = _table(data)
    _refuse_unknown(table.column_names, wanted)
    names = [name for keys in wanted.values() for name in ([keys] if isinstance(keys, str) else keys or ())]
    columns = {name: table.column(name) for name in names}
    problems = [
        f"the column {name!r} has no value in {column.null_count} of {len(column)} rows; remove them or fill them in"
        for name, column in columns.items()
        if column.null_count
    ]
    arrays = {name: _column(column) for name, column in columns.items()}
    problems += [
        f"the column {name!r} is {columns[name].type}, which is neither numbers nor text; convert it first"
        for name, array in arrays.items()
        if array.dtype.kind not in "biufS"
    ]
    if not len(table):
        problems.append("the table has no rows")
    if problems:
        raise DataError("\n".join(problems))
    return tuple(
        arrays[keys] if isinstance(keys, str) else {name: arrays[name] for name in keys}
        for keys in wanted.values()
        if keys
    )


def _column(column: Any) -> np.ndarray:
    array = np.asarray(column.to_numpy(zero_copy_only=False) if hasattr(column, "to_numpy") else column)
    if array.dtype == object and len(array):
        rows = [np.asarray(row) for row in array]
        if len({row.shape for row in rows}) == 1 and rows[0].dtype.kind in "biufU":
            array = np.stack(rows)
    array = in_floatx(array)
    return np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array


@checked
def folds(
    data: Any, count: int, *, seed: int = 0, groups: Sequence[Any] | np.ndarray | None = None
) -> list[tuple[Source, Source]]:
    """Return pairs (training, validation) of sources: every example is in the validation part of exactly one pair.

    Args:
        data: arrays, a source, or anything else with random access that `fit` takes.
        count: pairs, at least 2.
        seed: chooses which examples are together.
        groups: the group of each example, (size,): those of one group are never divided between the parts of a pair.

    Raises:
        DataError: a stream, which has no random access; fewer examples or groups than folds; groups of another length.
    """
    source = _with_access(data, "folds")
    labels = np.arange(source.size) if groups is None else np.asarray(groups)
    if labels.shape != (source.size,):
        raise DataError(f"groups: an array of shape {labels.shape}; the {source.size} examples need ({source.size},)")
    kinds = len(np.unique(labels))
    if not 2 <= count <= kinds:
        what = "examples" if groups is None else "groups"
        raise DataError(f"count={count}: from 2 to the number of {what}, {kinds}")
    held_out = fold_of_each(labels, count, seed=seed)
    return [
        (take(source, np.flatnonzero(held_out != each)), take(source, np.flatnonzero(held_out == each)))
        for each in range(count)
    ]


@checked
def balanced(data: Any, labels: Sequence[Any] | np.ndarray | None = None) -> Source:
    """Return a source in which every class has as many examples as the largest: those of the others are repeated.

    An epoch is longer by the repeats. Within a class no example occurs more than once oftener than another.

    Args:
        data: arrays, a source, or anything else with random access that `fit` takes.
        labels: the class of each example, (size,); None: the single target, which must be one integer an example.

    Raises:
        DataError: a stream; no labels to be found; labels of another length.
    """
    source = _with_access(data, "balanced")
    classes = _labels(source) if labels is None else np.asarray(labels)
    if classes.shape != (source.size,):
        raise DataError(f"labels: an array of shape {classes.shape}; the {source.size} examples need ({source.size},)")
    kinds, own = np.unique(classes, return_inverse=True)
    most = int(np.bincount(own).max())
    return take(source, np.concatenate([np.resize(np.flatnonzero(own == kind), most) for kind in range(len(kinds))]))


def _with_access(data: Any, verb: str) -> Source:
    source = as_source(data)
    if isinstance(source, Stream):
        raise DataError(
            f"{verb}: the examples of a {type(data).__name__} come one after another; random access is needed"
        )
    return source


def _labels(source: Source) -> np.ndarray:
    spec = source.spec()
    target = leaves(spec[1]) if isinstance(spec, tuple) and len(spec) > 1 else []
    if len(target) != 1 or not target[0].dtype.is_integer or target[0].shape.num_elements() != 1:
        raise DataError("labels: the data has no single target of one integer an example; give labels=...")
    if known := labels_of(source, "y"):
        return next(iter(known.values())).reshape(-1)
    return np.asarray(leaves(targets_of(source))[0]).reshape(-1)


def targets_of(source: Source | Stream) -> Any:
    """Return the targets of all examples, arrays (size, ...) in their structure; they are read to the end."""
    if isinstance(source, Stream):
        dataset = source.dataset if source.batched else source.dataset.batch(_CHUNK)
        parts = [example[1] for example in dataset]
    else:
        starts = range(0, source.size, _CHUNK)
        chunks = (np.arange(start, min(start + _CHUNK, source.size)) for start in starts)
        parts = [source.load(tf.constant(chunk))[1] for chunk in chunks]
    return keras.tree.map_structure(lambda *arrays: np.concatenate([np.asarray(array) for array in arrays]), *parts)
