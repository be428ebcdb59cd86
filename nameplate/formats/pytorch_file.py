"""PyTorch files (`torch.save`, the zip format since 1.6): tensors by name, read without running their pickle.

https://docs.pytorch.org/docs/stable/notes/serialization.html. A file is an uncompressed zip of `<top>/data.pkl`,
`<top>/byteorder` and one member per storage, `<top>/data/<key>`.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nameplate.checkpoint import dtypes, tensor_names
from nameplate.errors import FileFormatError
from nameplate.formats import zip_archive as archives
from nameplate.formats.arrays import Arrays
from nameplate.formats.limits import budget_of
from nameplate.formats.name_table import Array, NameTable, of_arrays
from nameplate.formats.pytorch_layouts import slashed
from nameplate.formats.pytorch_pickle import DTYPES, STORAGES, Tensor, structure
from nameplate.naming.names import join

_PICKLE = 4 << 20  # bytes of the pickle that any file may have
_PICKLE_MEMBER = 2048  # plus so many per member; a tensor takes about 200
_LARGEST_TENSOR = 1 << 40  # bytes
_STEPS = 200_000  # instructions of the pickle, and values in it, that any file may have
_STEPS_MEMBER = 100  # plus so many per member; a tensor takes some 40
_DEEPEST = 50
_TOP = "archive"  # name of the folder in files that we write
_STORAGE_OF = {name: storage for storage, name in STORAGES.items()}
_DTYPE_OF = {name: own for own, name in DTYPES.items()}
_WIDTHS = {"uint16": 2, "uint32": 4, "uint64": 8} | {name: 1 for name in _DTYPE_OF if name.startswith("float8")}
_EMPTY = b"ccollections\nOrderedDict\n)R"  # pickle instructions that call OrderedDict()
_PIECE = 16 << 20  # bytes


def read_pytorch_table(path: Path) -> NameTable:
    """Return the table of a PyTorch file: a module is a layer, with slashes in its name instead of dots.

    Raises:
        FileFormatError: as `open_pytorch`.
    """
    with open_pytorch(path) as arrays:
        listed = [Array(slashed(name), form.shape, form.dtype) for name, form in arrays.forms.items()]
    return of_arrays(Path(path).name, listed)


def open_pytorch(path: Path) -> Arrays:
    """Open the tensors of a file that `torch.save` wrote: a state dictionary, or nested dictionaries and lists of them.

    A name is the tensor's key, after the keys of the dictionaries around it: `model/layer1.0.conv1.weight`.

    Raises:
        FileFormatError: for a file from before PyTorch 1.6, one that would execute something, and one whose tensors
            exceed their storages.
    """
    with archives.opened(path, "PyTorch") as archive:
        top = _top(archive, path)
        if f"{top}/byteorder" in archive.namelist():
            order = archives.member(archive, f"{top}/byteorder", path, largest=16)
            if order.strip() != b"little":
                raise FileFormatError(f"{path} has the byte order {order!r}; only little-endian files are read")
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        steps = _STEPS + _STEPS_MEMBER * len(sizes)
        code = archives.member(archive, f"{top}/data.pkl", path, largest=_PICKLE + _PICKLE_MEMBER * len(sizes))
        tensors = dict(_tensors(structure(code, str(path), steps=steps), path, steps))
    faults = [*_name_faults(tensors), *_storage_faults(tensors, top, sizes)]
    if faults:
        raise FileFormatError("\n".join([f"{path} is refused:", *(f"  {fault}" for fault in faults[:10])]))
    listed = [Array(name, tensor.shape, tensor.dtype, name) for name, tensor in tensors.items()]
    return Arrays(listed, _Reader(path, top, tensors).read, path=path, format="PyTorch", budget=budget_of(path))


class _Reader:
    """Reads storages and caches the last, since tensors that share one usually follow each other."""

    def __init__(self, path: Path, top: str, tensors: Mapping[str, Tensor]) -> None:
        self._path = path
        self._top = top
        self._tensors = tensors
        self._last: tuple[str, bytes] = ("", b"")

    def read(self, name: str) -> np.ndarray:
        tensor = self._tensors[name]
        if self._last[0] != tensor.storage.key or not self._last[0]:
            self._last = (tensor.storage.key, self._storage(tensor))
        dtype = dtypes.of_name(tensor.dtype)
        assert dtype is not None  # `_storage_faults` refused any other
        whole = np.frombuffer(self._last[1], dtype)
        strides = tuple(stride * dtype.itemsize for stride in tensor.strides)
        if not math.prod(tensor.shape):
            return np.empty(tensor.shape, dtype)
        return np.array(np.lib.stride_tricks.as_strided(whole[tensor.offset :], tensor.shape, strides), order="C")

    def _storage(self, tensor: Tensor) -> bytes:
        with archives.opened(self._path, "PyTorch") as archive:
            return archives.member(archive, _member(self._top, tensor), self._path, largest=_LARGEST_TENSOR)


def _top(archive: zipfile.ZipFile, path: Path) -> str:
    tops = [name.removesuffix("/data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(tops) != 1 or "/" in tops[0]:
        script = any("/code/" in name for name in archive.namelist())
        kind = "a TorchScript archive" if script else "not a state dictionary"
        raise FileFormatError(f"{path} is a zip file, but {kind}: torch.save writes one <name>/data.pkl")
    if f"{tops[0]}/constants.pkl" in archive.namelist():
        raise FileFormatError(f"{path} is a TorchScript archive, which is code; save its state_dict() instead")
    return tops[0]


def _tensors(whole: Any, path: Path, most: int) -> Iterator[tuple[str, Tensor]]:
    """Yield each tensor under the keys that lead to it, in file order."""
    stack: list[tuple[str, Any, int]] = [("", whole, 0)]
    for _ in range(most):
        if not stack:
            return
        name, value, depth = stack.pop()
        if len(name) > tensor_names.LONGEST_KEY:
            raise FileFormatError(
                f"{path} is refused: {name!r:.120} is longer than {tensor_names.LONGEST_KEY} characters"
            )
        if isinstance(value, Tensor):
            yield name or "tensor", value
        elif depth < _DEEPEST:
            pairs = (
                value.items()
                if isinstance(value, dict)
                else enumerate(value)
                if isinstance(value, list | tuple)
                else ()
            )
            stack += reversed([(join(name, str(key)), item, depth + 1) for key, item in pairs])
            if len(stack) > most:
                break
    raise FileFormatError(f"{path} has more than {most} values, and no state dictionary of its size does")


def _name_faults(tensors: Mapping[str, Tensor]) -> list[str]:
    return [f"{name!r:.120} {fault}" for name in tensors if (fault := tensor_names.foreign_fault(name))]


def _storage_faults(tensors: Mapping[str, Tensor], top: str, sizes: Mapping[str, int]) -> list[str]:
    faults = []
    for name, tensor in tensors.items():
        dtype = dtypes.of_name(tensor.dtype)
        size = sizes.get(_member(top, tensor))
        if dtype is None or size is None:
            faults.append(f"{name}: its {'storage is missing' if dtype else f'dtype {tensor.dtype} is unknown'}")
            continue
        last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
        empty = not math.prod(tensor.shape)
        if not empty and (last + 1) * dtype.itemsize > size:
            faults.append(f"{name}: shape {tensor.shape} and strides {tensor.strides} exceed its {size} bytes")
    return faults


def _member(top: str, tensor: Tensor) -> str:
    return f"{top}/data/{tensor.storage.key}"


def write_state_dict(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write `{key: array}` as `torch.save(state_dict, path)` does, for `torch.load` to read.

    Raises:
        FileFormatError: for a dtype that PyTorch does not have.
    """
    forms = {key: (value.dtype.name, value.shape) for key, value in tensors.items()}
    unknown = sorted({dtype for dtype, _ in forms.values()} - {*_STORAGE_OF, *_DTYPE_OF})
    if unknown:
        raise FileFormatError(f"{path}: PyTorch has no {', '.join(unknown)}")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{_TOP}/data.pkl", _pickle(forms))
        archive.writestr(f"{_TOP}/byteorder", "little")
        for number, value in enumerate(tensors.values()):
            plain = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
            with archive.open(f"{_TOP}/data/{number}", "w", force_zip64=True) as member:
                flat = plain.reshape(-1).view(np.uint8)
                for start in range(0, flat.size, _PIECE):
                    member.write(flat[start : start + _PIECE].tobytes())
        archive.writestr(f"{_TOP}/version", "3\n")


def _pickle(forms: Mapping[str, tuple[str, tuple[int, ...]]]) -> bytes:
    """Return the protocol 2 pickle of an OrderedDict of tensors, each with a storage of its own."""
    pieces = [b"\x80\x02", _EMPTY, b"("]
    for number, (key, (dtype, shape)) in enumerate(forms.items()):
        pieces += [_text(key), _tensor(number, dtype, shape)]
    return b"".join([*pieces, b"u."])


def _tensor(number: int, dtype: str, shape: tuple[int, ...]) -> bytes:
    size = int(np.prod(shape, dtype=np.int64))
    typed = dtype in _STORAGE_OF
    kind = f"ctorch\n{_STORAGE_OF[dtype]}\n" if typed else "ctorch.storage\nUntypedStorage\n"
    count = size if typed else size * _WIDTHS[dtype]
    storage = [b"(", _text("storage"), kind.encode(), _text(str(number)), _text("cpu"), _integer(count), b"tQ"]
    strides = [int(np.prod(shape[axis + 1 :], dtype=np.int64)) for axis in range(len(shape))]
    version = "v2" if typed else "v3"
    body = [f"ctorch._utils\n_rebuild_tensor_{version}\n(".encode(), *storage, _integer(0)]
    body += [_tuple(shape), _tuple(strides), b"\x89", _EMPTY]
    body += [] if typed else [f"ctorch\n{_DTYPE_OF[dtype]}\n".encode()]
    return b"".join([*body, b"tR"])


def _text(text: str) -> bytes:
    coded = text.encode()
    return b"X" + struct.pack("<I", len(coded)) + coded


def _integer(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)


def _tuple(values: tuple[int, ...] | list[int]) -> bytes:
    return b"(" + b"".join(map(_integer, values)) + b"t"
