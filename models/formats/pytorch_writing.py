"""Writing a PyTorch state dictionary: the zip format of `torch.save`, tensors only, without PyTorch."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from models.formats.errors import FileFormatError
from models.formats.pytorch_pickle import _DTYPES, _STORAGES

_TOP = "archive"
_STORAGE_OF = {name: storage for storage, name in _STORAGES.items()}
_DTYPE_OF = {name: own for own, name in _DTYPES.items()}
_PIECE = 16 << 20  # bytes


def write_state_dict(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write `{key: array}` as `torch.save(state_dict, path)` would, such that `torch.load` gives it back.

    Raises:
        FileFormatError: for a number format that PyTorch does not have.
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
    """Return the pickle, protocol 2, of an OrderedDict of tensors, each with a storage of its own."""
    pieces = [b"\x80\x02", _EMPTY, b"("]
    for number, (key, (dtype, shape)) in enumerate(forms.items()):
        pieces += [_text(key), _tensor(number, dtype, shape)]
    return b"".join([*pieces, b"u."])


_EMPTY = b"ccollections\nOrderedDict\n)R"  # called with nothing


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


_WIDTHS = {"uint16": 2, "uint32": 4, "uint64": 8} | {name: 1 for name in _DTYPE_OF if name.startswith("float8")}


def _text(text: str) -> bytes:
    coded = text.encode()
    return b"X" + struct.pack("<I", len(coded)) + coded


def _integer(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)


def _tuple(values: tuple[int, ...] | list[int]) -> bytes:
    return b"(" + b"".join(map(_integer, values)) + b"t"
