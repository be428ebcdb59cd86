"""The process that parses an HDF5 file for `nameplate.formats.hdf5`, under limits set before the file is opened.

A request is one line of JSON on standard input: `["contents"]` or `["read", PATH]`. The answer is one line of JSON on
standard output, `{"error": ...}` on failure; after the answer to `read` come the bytes of the array, in C order,
little-endian. Once the file is open, no other can be opened, so that whatever a hostile file makes the library do stays
inside this process.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

SECONDS = 120  # of waiting for an answer
_SECONDS = 20  # of processor time, plus one for every `_PER_SECOND` bytes that may come out
_PER_SECOND = 32 << 20
_MEMORY = 4 << 30  # bytes of address space
_MOST_OBJECTS = 40_000  # groups and arrays; a layer has two to four
_DEEPEST = 64
_LONGEST_PATH = 4096  # characters
_TEXTS = 4 << 20  # characters of names and texts that any file may have, plus two for each of its bytes
_PIECE = 16 << 20  # bytes read at once


def main() -> None:
    """Serve one file until standard input ends."""
    import h5py
    import ml_dtypes  # noqa: F401  registers dtypes that h5py asks NumPy for
    import numpy as np  # noqa: F401  before files can no longer be opened

    stored, allowed = int(sys.argv[2]), int(sys.argv[3])  # bytes of the file, and bytes that may come out
    _rehearse(h5py)
    _limit(_SECONDS + allowed // _PER_SECOND)
    try:
        file = h5py.File(sys.argv[1], "r")
    except Exception as failure:
        _answer({"error": f"it cannot be read as HDF5: {_message(failure)}"})
        return
    _forbid_opening()
    with file:
        for line in sys.stdin:
            what, *arguments = json.loads(line)
            try:
                if what == "contents":
                    _answer(_contents(file, h5py, stored, allowed))
                else:
                    _send(file[arguments[0]])
            except Exception as failure:
                _answer({"error": f"it cannot be read as HDF5: {_message(failure)}"})


def _limit(seconds: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _rehearse(h5py: Any) -> None:
    """Read a file in memory, so that everything Python imports on first use is imported."""
    with h5py.File("rehearsal", "w", driver="core", backing_store=False) as file:
        file["group/array"] = [1.0]
        for index, text in enumerate(("name", ["a", "é"], b"x", "é")):
            file["group"].attrs[str(index)] = text
        _contents(file, h5py, 0, 1 << 20)


def _forbid_opening() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))  # files that are already open stay usable


def _answer(answer: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()


def _contents(file: Any, h5py: Any, stored: int, allowed: int) -> dict[str, Any]:
    attributes: dict[str, dict[str, Any]] = {}
    datasets: dict[str, tuple[list[int], str]] = {}
    nbytes = 0
    texts_left = _TEXTS + 2 * stored
    for where, item in _items(file, h5py):
        texts_left -= len(where)
        if isinstance(item, h5py.Dataset):
            nbytes += (item.size or 0) * item.dtype.itemsize
            if nbytes > allowed:
                raise ValueError(f"its {stored} bytes would grow to {nbytes} or more; such files are refused")
            datasets[where] = ([int(size) for size in item.shape or ()], _dtype(item))
            continue
        texts = _texts(item, texts_left)
        texts_left -= sum(map(_length, texts.values()))
        if texts_left < 0:
            raise ValueError("its names and texts are larger than the file; such files are refused")
        if texts:
            attributes[where] = texts
    return {"attributes": attributes, "datasets": datasets, "bytes": nbytes}


def _texts(group: Any, left: int) -> dict[str, Any]:
    """Return the text attributes of a group, stopping once they exceed `left` characters."""
    texts = {}
    for key in group.attrs:
        text = _text(group.attrs[key])
        if text is not None:
            texts[key] = text
            left -= _length(text)
        if left < 0:
            break
    return texts


def _length(text: Any) -> int:
    return len(text) if isinstance(text, str) else sum(map(len, text))


def _items(file: Any, h5py: Any) -> Iterator[tuple[str, Any]]:
    """Yield (path, group or dataset), reached by hard links only, groups before their members."""
    objects = 0
    stack: list[tuple[str, Any]] = [("", file)]
    while stack:
        where, group = stack.pop()
        yield where, group
        if len(where.split("/")) > _DEEPEST:
            raise ValueError(f"groups are nested deeper than {_DEEPEST}")
        children = []
        objects += len(group)
        if objects > _MOST_OBJECTS:
            raise ValueError(f"it has more than {_MOST_OBJECTS} groups and arrays; such files are refused")
        for key in group:
            place = f"{where}/{key}" if where else key
            if len(place) > _LONGEST_PATH:
                raise ValueError(f"{place:.80}... is longer than {_LONGEST_PATH} characters; such files are refused")
            if not _plain(group, key, h5py):
                raise ValueError(f"{place} is a link that can leave the file; such files are refused")
            child = group[key]
            if isinstance(child, h5py.Group):
                children.append((place, child))
            elif isinstance(child, h5py.Dataset):
                if child.external or child.is_virtual:
                    raise ValueError(f"{place} has its data in another file; such files are refused")
                yield place, child
        stack.extend(reversed(children))


def _plain(group: Any, key: str, h5py: Any) -> bool:
    try:
        return isinstance(group.get(key, getlink=True), h5py.HardLink)
    except TypeError:  # a user-defined link, which needs a plugin
        return False


def _dtype(dataset: Any) -> str:
    """Return NumPy's name of the dtype, or whatever else the file says it holds."""
    marked = dataset.attrs.get("dtype")
    if isinstance(marked, str):
        return marked
    return "bfloat16" if str(dataset.dtype) == "|V2" else str(dataset.dtype.newbyteorder("="))  # as Keras' `.h5` has it


def _send(dataset: Any) -> None:
    import numpy as np

    if dataset.dtype.kind not in "biufcV" or dataset.dtype.hasobject:
        raise ValueError(f"{dataset.name} holds {dataset.dtype}, not numbers")
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{dataset.name} has its data in another file; such files are refused")
    little = dataset.dtype.newbyteorder("<")
    _answer({"nbytes": (dataset.size or 0) * dataset.dtype.itemsize})
    out = sys.stdout.buffer
    rows = dataset.shape[0] if dataset.shape else 0
    if not dataset.size or not rows:
        out.write(np.asarray(dataset[()]).astype(little).tobytes() if dataset.size else b"")
    else:
        step = max(1, _PIECE * rows // max(1, dataset.size * dataset.dtype.itemsize))
        for start in range(0, rows, step):
            out.write(np.ascontiguousarray(dataset[start : start + step]).astype(little, copy=False).tobytes())
    out.flush()


def _text(value: Any) -> Any:
    """Return an attribute that is a text or a list of texts; None for any other."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        return value
    if hasattr(value, "tolist") and value.dtype.kind in "OSU":
        listed = value.tolist()
        if isinstance(listed, list) and all(isinstance(text, str | bytes) for text in listed):
            return [text.decode(errors="replace") if isinstance(text, bytes) else text for text in listed]
    return None


def _message(failure: Exception) -> str:
    return " ".join(str(failure).split()) or type(failure).__name__


if __name__ == "__main__":
    main()
