"""The structure of a PyTorch file from its pickle, by a small interpreter that imports and calls nothing.

It knows the few instructions that dictionaries, lists, numbers, texts and tensors need, builds plain Python values and
descriptions of tensors, and refuses everything else. Names to import are only compared with a list. The instructions
are documented in CPython's Lib/pickletools.py; PyTorch's use of them was read in torch 2.13.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nameplate.errors import FileFormatError

_MOST_DEPTH = 100_000  # values on the stack
_MOST_AXES = 32

# PyTorch's names of storages and dtypes, and NumPy's names for them (bfloat16 and float8 from ml_dtypes).
STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
}
DTYPES = {
    "uint16": "uint16",
    "uint32": "uint32",
    "uint64": "uint64",
    "float8_e4m3fn": "float8_e4m3fn",
    "float8_e5m2": "float8_e5m2",
    "float8_e4m3fnuz": "float8_e4m3fnuz",
    "float8_e5m2fnuz": "float8_e5m2fnuz",
    "float8_e8m0fnu": "float8_e8m0fnu",
}


@dataclass(frozen=True)
class Storage:
    """A block of numbers in the file."""

    key: str  # of its member: `data/<key>`
    dtype: str  # NumPy's name, empty where the tensor has the dtype
    size: int  # numbers, or bytes where the tensor has the dtype


@dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides count numbers."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Name:
    """A name that pickle would import; here it is only compared."""

    text: str


class _Mark:
    pass


class _RefusalError(Exception):
    pass


def structure(code: bytes, label: str, *, steps: int) -> Any:
    """Return the dictionaries, lists, numbers, texts and `Tensor` descriptions in a pickle of at most `steps` steps.

    Raises:
        FileFormatError: for anything else, with what the pickle would have imported, called or done.
    """
    try:
        return _Machine(code).run(steps)
    except _RefusalError as error:
        raise FileFormatError(
            f"{label} is refused: {error}. Only tensors in dictionaries and lists are read; if you trust its "
            "author, load it with PyTorch and save its state_dict()."
        ) from None
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration, struct.error, MemoryError) as error:
        raise FileFormatError(f"{label} is damaged: {type(error).__name__} in its pickle") from None


class _Machine:
    """A stack, a memo and an instruction pointer."""

    def __init__(self, code: bytes) -> None:
        self._code = code
        self._at = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, steps: int) -> Any:
        for _ in range(steps):
            op = self._take(1)
            if op == b".":
                return self._stack[-1]
            step = _STEPS.get(op)
            if step is None:
                raise _RefusalError(f"its pickle has the instruction {op!r}, which a state dictionary never needs")
            step(self)
            if len(self._stack) > _MOST_DEPTH:
                raise _RefusalError("its pickle stacks too many values")
        raise _RefusalError(f"its pickle does not end within {steps} steps, which is more than its tensors need")

    def _take(self, count: int) -> bytes:
        data = self._code[self._at : self._at + count]
        if len(data) != count:
            raise _RefusalError("its pickle ends early")
        self._at += count
        return data

    def _number(self, form: str) -> int:
        return int(struct.unpack(form, self._take(struct.calcsize(form)))[0])

    def _line(self) -> str:
        end = self._code.index(b"\n", self._at)
        text = self._code[self._at : end].decode("ascii")
        self._at = end + 1
        return text

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _marked(self) -> list[Any]:
        mark = next(i for i in range(len(self._stack) - 1, -1, -1) if isinstance(self._stack[i], _Mark))
        values = self._stack[mark + 1 :]
        del self._stack[mark:]
        return values

    def proto(self) -> None:
        version = self._number("<B")
        if version > 5:
            raise _RefusalError(f"its pickle has protocol {version}")

    def skip(self, count: int) -> None:
        self._take(count)

    def drop(self) -> None:
        self._stack.pop()

    def put(self, key: int) -> None:
        self._memo[key] = self._stack[-1]

    def text(self, form: str) -> None:
        self._push(self._take(self._number(form)).decode("utf-8", "strict"))

    def long(self) -> None:
        self._push(int.from_bytes(self._take(self._number("<B")), "little", signed=True))

    def tuple_of(self, count: int) -> None:
        values = tuple(self._stack[-count:])
        del self._stack[-count:]
        self._push(values)

    def set_items(self, pairs: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict:
            raise _RefusalError("its pickle sets items of something that is not a dictionary")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, str | int):
                raise _RefusalError(f"a dictionary has a key that is a {type(key).__name__}")
            target[key] = value

    def extend(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise _RefusalError("its pickle appends to something that is not a list")
        target.extend(values)

    def set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self.set_items([key, value])

    def append(self) -> None:
        value = self._stack.pop()
        self.extend([value])

    def import_line(self) -> None:
        self._push(_allowed(f"{self._line()}.{self._line()}"))

    def import_stack(self) -> None:
        own, module = self._stack.pop(), self._stack.pop()
        self._push(_allowed(f"{module}.{own}"))

    def persistent(self) -> None:
        kind, storage, key, _, size = self._stack.pop()  # the fourth is the device
        if kind != "storage" or not isinstance(storage, _Name) or not isinstance(key, str) or not _is_count(size):
            raise _RefusalError("its pickle refers to something that is not a storage")
        own = storage.text.rpartition(".")[2]
        self._push(Storage(key, STORAGES.get(own, ""), size))

    def reduce(self) -> None:
        arguments, called = self._stack.pop(), self._stack.pop()
        if not isinstance(called, _Name) or type(arguments) is not tuple:
            raise _RefusalError("its pickle calls something that is not a name")
        self._push(_called(called.text, arguments))

    def build(self) -> None:
        state = self._stack.pop()  # the `_metadata` of a state dictionary: versions of modules
        if type(self._stack[-1]) is not dict or type(state) not in (dict, tuple):
            raise _RefusalError("its pickle sets the state of something that is not a dictionary")


def _allowed(text: str) -> _Name:
    module, _, own = text.rpartition(".")
    known = text in _CALLS or (module == "torch" and (own in STORAGES or own in DTYPES))
    if known or text in ("torch.storage.UntypedStorage", "torch.UntypedStorage"):
        return _Name(text)
    raise _RefusalError(f"its pickle would import {text!r:.120}")


def _called(text: str, arguments: tuple[Any, ...]) -> Any:
    call = _CALLS.get(text)
    if call is None:
        raise _RefusalError(f"its pickle would call {text}")
    return call(*arguments)


def _dictionary(*pairs: Any) -> dict[Any, Any]:
    if pairs:
        raise _RefusalError("it calls OrderedDict with arguments")
    return {}


def _size(sizes: Any) -> tuple[Any, ...]:
    if type(sizes) not in (list, tuple) or len(sizes) > _MOST_AXES:
        raise _RefusalError("a shape has more axes than any tensor")
    return tuple(sizes)


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any = None, _hooks: Any = None, *more: Any
) -> Tensor:
    """Return the tensor of `torch._utils._rebuild_tensor_v2` or `_v3`, whose seventh argument is the dtype."""
    if not (isinstance(storage, Storage) and _is_count(offset) and _are_counts(shape) and _are_counts(strides)):
        raise _RefusalError("a tensor is not described by its storage, offset, shape and strides")
    named = next((value.text.rpartition(".")[2] for value in more if isinstance(value, _Name)), "")
    dtype = DTYPES.get(named, "") or storage.dtype
    if not dtype or len(shape) != len(strides) or len(shape) > _MOST_AXES:
        raise _RefusalError("a tensor has an unknown dtype, or a shape that does not fit its strides")
    return Tensor(storage, dtype, offset, tuple(shape), tuple(strides))


def _parameter(data: Any, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise _RefusalError("a parameter is not a tensor")
    return data


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _are_counts(values: Any) -> bool:
    return type(values) is tuple and all(map(_is_count, values))


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _dictionary,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": _size,
}

_STEPS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _Machine.proto,
    b"\x95": lambda m: m.skip(8),  # the length of a frame
    b"(": lambda m: m._push(_Mark()),
    b"}": lambda m: m._push({}),
    b"]": lambda m: m._push([]),
    b")": lambda m: m._push(()),
    b"N": lambda m: m._push(None),
    b"\x88": lambda m: m._push(True),
    b"\x89": lambda m: m._push(False),
    b"K": lambda m: m._push(m._number("<B")),
    b"M": lambda m: m._push(m._number("<H")),
    b"J": lambda m: m._push(m._number("<i")),
    b"\x8a": _Machine.long,
    b"G": lambda m: m._push(struct.unpack(">d", m._take(8))[0]),
    b"X": lambda m: m.text("<I"),
    b"\x8c": lambda m: m.text("<B"),
    b"q": lambda m: m.put(m._number("<B")),
    b"r": lambda m: m.put(m._number("<I")),
    b"\x94": lambda m: m.put(len(m._memo)),
    b"h": lambda m: m._push(m._memo[m._number("<B")]),
    b"j": lambda m: m._push(m._memo[m._number("<I")]),
    b"t": lambda m: m._push(tuple(m._marked())),
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"s": _Machine.set_item,
    b"u": lambda m: m.set_items(m._marked()),
    b"a": _Machine.append,
    b"e": lambda m: m.extend(m._marked()),
    b"0": lambda m: m.drop(),
    b"c": _Machine.import_line,
    b"\x93": _Machine.import_stack,
    b"Q": _Machine.persistent,
    b"R": _Machine.reduce,
    b"b": _Machine.build,
}
