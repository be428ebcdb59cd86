"""Examples of objects with `__len__` and `__getitem__`: datasets in PyTorch's style, Hugging Face `datasets`, Grain."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nameplate.data.errors import CLOSE, OPEN, DataError
from nameplate.data.source import Example, leaves, mapped
from nameplate.data.sparse import in_floatx

Select = Callable[[Any], Any]  # what `__getitem__` returns -> x, (x,), (x, y) or (x, y, sample_weight)


def is_indexed(data: Any) -> bool:
    """Say whether data has a length and examples by index, and is none of the forms that Keras takes."""
    known = str | bytes | Mapping | list | tuple | keras.utils.PyDataset | tf.data.Dataset
    if tf.is_tensor(data) or type(data).__module__.startswith("scipy."):
        return False  # ragged and sparse ones have rows, and no length or no array
    found = callable(getattr(type(data), "__len__", None)) and callable(getattr(type(data), "__getitem__", None))
    return found and not isinstance(data, known) and not hasattr(data, "__array__")


class Indexed:
    """A source of the examples that an object returns by index.

    They have the shapes and dtypes of the first; floats become Keras' floatx, numbers of Python int64 and floatx. The
    examples of a step are read by `__getitems__(indices)` if the object has it, or one by one, by `workers` threads.
    With one, the object is never called by two threads at once.
    """

    def __init__(self, examples: Any, name: str = "data", *, select: Select | None = None, workers: int = 1) -> None:
        self.size = len(examples)
        self._examples, self._name = examples, name
        self._select = select or (lambda item: item)
        self._kind = type(examples).__name__
        if not self.size:
            raise DataError(f"{name}: a {self._kind} without examples")
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(workers) if workers > 1 else None
        self._first = self._read(0)
        if select is None and isinstance(self._first, dict):
            raise DataError(f"{name}: {no_choice(self._first)}")
        if unplain := [leaf.dtype for leaf in leaves(self._first) if leaf.dtype == object]:
            raise DataError(f"{name}: example 0 of a {self._kind} has values of {unplain[0]}, not numbers or text")

    def spec(self) -> Example:
        """Return the structure of one example."""
        return mapped(lambda leaf: tf.TensorSpec(leaf.shape, tf.as_dtype(leaf.dtype)), self._first)

    def load(self, indices: tf.Tensor) -> Example:
        """Return the examples at `indices` (n,); the error for one that cannot be read says which it is."""
        specs = leaves(self.spec())
        read = tf.numpy_function(self._rows, [indices], [spec.dtype for spec in specs], stateful=False)
        for leaf, spec in zip(read, specs, strict=True):
            leaf.set_shape([indices.shape[0], *spec.shape])
        arrays = iter(read)
        return mapped(lambda _: next(arrays), self._first)

    def arrays(self) -> None:
        """Return None: examples are read when they are needed."""

    def differs(self) -> bool:
        """Say whether the first example is another one when it is read again."""
        again = leaves(self._read(0))
        return any(one.tobytes() != other.tobytes() for one, other in zip(leaves(self._first), again, strict=True))

    def _rows(self, indices: np.ndarray) -> list[np.ndarray]:
        try:
            read = list(self._read_all([int(index) for index in indices]))
        except DataError as error:
            raise DataError(f"{OPEN}{error}{CLOSE}") from error
        return [np.stack(column) for column in zip(*read, strict=True)]

    def _read_all(self, indices: list[int]) -> Iterator[list[np.ndarray]]:
        if hasattr(self._examples, "__getitems__"):
            with self._lock:
                items = self._called(indices)
            if len(items) != len(indices):
                counts = f"{len(items)} items for {len(indices)} indices"
                raise DataError(f"{self._name}: __getitems__ of a {self._kind} returned {counts}")
            yield from (
                self._alike(index, self._converted(item, index)) for index, item in zip(indices, items, strict=True)
            )
        elif self._pool is None:
            with self._lock:
                yield from [self._alike(index, self._read(index)) for index in indices]
        else:
            yield from self._pool.map(lambda index: self._alike(index, self._read(index)), indices)

    def _called(self, indices: list[int]) -> Sequence[Any]:
        try:
            items: Sequence[Any] = self._examples.__getitems__(indices)
        except Exception as error:  # of the user's code
            shown = f"{indices[:4]}"[:-1] + (", ...]" if len(indices) > 4 else "]")
            raise DataError(f"{self._name}: examples {shown} of a {self._kind}: {_worded(error)}") from error
        return items

    def _read(self, index: int) -> Example:
        try:
            item = self._examples[index]
        except Exception as error:  # of the user's code
            raise DataError(f"{self._name}: example {index} of a {self._kind}: {_worded(error)}") from error
        return self._converted(item, index)

    def _converted(self, item: Any, index: int) -> Example:
        try:
            return _arrays(self._select(item))
        except (TypeError, ValueError, LookupError) as error:
            raise DataError(f"{self._name}: example {index} of a {self._kind}: {_worded(error)}") from error

    def _alike(self, index: int, example: Example) -> list[np.ndarray]:
        """Return the leaves of an example; refuse one of another form than the first."""
        found, expected = _form(example), _form(self._first)
        if found != expected:
            raise DataError(
                f"{self._name}: example {index} of a {self._kind} is {found}, and example 0 is {expected}; all need "
                "the same structure, shapes and dtypes (pad sequences and resize images to one size)"
            )
        return leaves(example)


def _arrays(item: Any) -> Any:
    """Return an item with tuples and dicts as they are, and all else as arrays, floats in Keras' floatx."""
    if isinstance(item, dict):
        return {key: _arrays(part) for key, part in item.items()}
    if isinstance(item, tuple):
        return tuple(_arrays(part) for part in item)
    return None if item is None else _array(item)


def _array(leaf: Any) -> np.ndarray:
    array = in_floatx(np.asarray(leaf))
    return np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array


def _form(example: Example) -> str:
    def text(part: Any) -> str:
        if isinstance(part, dict):
            return "{" + ", ".join(f"{key}: {text(inner)}" for key, inner in part.items()) + "}"
        if isinstance(part, tuple):
            return "(" + ", ".join(map(text, part)) + ")"
        if part is None:
            return "None"
        return f"text {part.shape}" if part.dtype.kind == "S" else f"{part.dtype} {part.shape}"

    return text(example)


def _worded(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")


def no_choice(keys: Iterable[str]) -> str:
    """Return the message for examples that are dicts with these keys, of which none is said to be an input."""
    known = list(keys)
    return (
        f"the examples have {', '.join(known)}: say which are inputs and which targets, "
        f"nameplate.data.examples(data, inputs={known[0]!r}, targets={known[-1]!r})"
    )
