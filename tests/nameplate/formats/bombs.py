"""Files that would expand without bound, each created in a fraction of a second."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import h5py
import keras
import numpy as np

MEBI = 1 << 20


# ---- zip files --------------------------------------------------------------------------------------------------


def small_keras(path: Path) -> Path:
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="a")], name="m").save(path)
    return path


def zeros(archive: zipfile.ZipFile, name: str, nbytes: int) -> None:
    """Add a member of `nbytes` zeros, compressed to a thousandth."""
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    with archive.open(info, "w") as member:
        for _ in range(0, nbytes, MEBI):
            member.write(bytes(MEBI))


def many_members(path: Path, count: int) -> Path:
    """Write an archive of `count` empty members, faster than `zipfile` does."""
    local, directory = bytearray(), bytearray()
    for each in range(count):
        name = b"assets/%06d" % each
        about = (20, 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0, 0, 0, 0, 0, len(local))
        local += struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0) + name
        directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", *about) + name
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count & 0xFFFF, count & 0xFFFF, len(directory), len(local), 0)
    path.write_bytes(bytes(local + directory + end))
    return path


def assets(folder: Path) -> Path:
    """Each asset is small enough, all together are not."""
    path = small_keras(folder / "m.keras")
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(3):
            zeros(archive, f"assets/{number}", 60 * MEBI)
    return path


def weights_in_archive(folder: Path) -> Path:
    """The archive grows as far as it may, and the HDF5 file in it would grow again."""
    path, part = small_keras(folder / "m.keras"), folder / "part.h5"
    with h5py.File(part, "w") as file:
        group = file.create_group("layers/dense/vars")
        for number in range(60):
            group.create_dataset(str(number), (60 * MEBI // 4,), "f4", chunks=(1024,))
        group["padding"] = np.zeros(30 * MEBI // 4, "f4")
    with zipfile.ZipFile(path) as good, zipfile.ZipFile(folder / "n.keras", "w", zipfile.ZIP_DEFLATED) as bad:
        for name in ("config.json", "metadata.json"):
            bad.writestr(name, good.read(name))
        bad.write(part, "model.weights.h5")
    return folder / "n.keras"


# ---- PyTorch ----------------------------------------------------------------------------------------------------

IMPORT = b"ctorch._utils\n_rebuild_tensor_v2\n"


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def tensor(key: str, shape: Iterable[int], strides: Iterable[int], size: int = 16) -> bytes:
    """Return the instructions of a tensor over a storage of `size` numbers."""
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + number(size) + b"tQ"
    sizes, steps = (b"(" + b"".join(map(number, each)) + b"t" for each in (shape, strides))
    return IMPORT + b"(" + storage + number(0) + sizes + steps + b"\x89ccollections\nOrderedDict\n)RtR"


def dictionary(items: dict[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def pytorch(path: Path, code: bytes, *, storages: int = 1, compressed: bool = False) -> Path:
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("m/data.pkl", b"\x80\x02" + code + b".")
        for key in range(storages):
            archive.writestr(f"m/data/{key}", np.arange(16, dtype="float32").tobytes())
    return path


def repeated(folder: Path) -> Path:
    """Each tensor repeats one number 15 million times."""
    one = tensor("0", [15 * MEBI], [0])
    return pytorch(folder / "m.pt", dictionary({f"t{each}": one for each in range(300)}))


def zip_bomb(folder: Path) -> Path:
    path = pytorch(folder / "m.pt", dictionary({"t": tensor("big", [50 * MEBI], [1], 50 * MEBI)}))
    with zipfile.ZipFile(path, "a") as archive:
        zeros(archive, "m/data/big", 200 * MEBI)
    return path


def endless(folder: Path) -> Path:
    return pytorch(folder / "m.pt", b"}0" * (MEBI + MEBI // 2) + b"}", compressed=True)


def copied_shapes(folder: Path) -> Path:
    """Every call of `torch.Size` would copy a list of 50,000 numbers, and all copies stay."""
    listed = b"](" + b"K\x00" * 50_000 + b"e" + b"q\x00"
    return pytorch(folder / "m.pt", listed + b"ctorch\nSize\nq\x01" + b"h\x01h\x00\x85R" * 20_000, compressed=True)


def doubled(folder: Path) -> Path:
    """A dictionary that has another twice, forty levels deep."""
    code = dictionary({"t": tensor("0", [1], [1])}) + b"q\x00"
    for level in range(40):
        code += dictionary({"a": b"h" + bytes([level]), "b": b"h" + bytes([level])}) + b"q" + bytes([level + 1])
    return pytorch(folder / "m.pt", code)


def long_names(folder: Path) -> Path:
    """Names of a mebibyte on two levels."""
    code = dictionary({"x" * MEBI: tensor("0", [1], [1]), "y" * MEBI: tensor("0", [1], [1])}) + b"q\x00"
    return pytorch(folder / "m.pt", code + dictionary({"z" * MEBI: b"h\x00"}), compressed=True)


# ---- HDF5 -------------------------------------------------------------------------------------------------------


def empty_sets(folder: Path) -> Path:
    with h5py.File(folder / "m.weights.h5", "w") as file:
        group = file.create_group("layers/dense/vars")
        for each in range(150):
            group.create_dataset(str(each), (12 * MEBI,), "f4", chunks=(1024,))
    return folder / "m.weights.h5"


def many_groups(folder: Path) -> Path:
    with h5py.File(folder / "m.weights.h5", "w") as file:
        for each in range(40_001):
            h5py.h5g.create(file.id, b"%d" % each)
    return folder / "m.weights.h5"


def long_paths(folder: Path) -> Path:
    with h5py.File(folder / "m.weights.h5", "w") as file:
        group = file.create_group("x" * 3000).create_group("y" * 3000)
        for each in range(10):
            group[str(each)] = 1.0
    return folder / "m.weights.h5"


def one_file_under_many_names(folder: Path) -> Path:
    with h5py.File(folder / "a.weights.h5", "w") as file:
        file["layers/dense/vars/0"] = np.zeros(3, "f4")
    os.link(folder / "a.weights.h5", folder / "b.weights.h5")
    index = folder / "m.weights.json"
    index.write_text(json.dumps({"weight_map": {"/layers/a": "a.weights.h5", "/layers/b": "b.weights.h5"}}))
    return index


# ---- TensorFlow -------------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def field(tag: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(tag << 3) + varint(value)
    return varint(tag << 3 | 2) + varint(len(value)) + value


def entry(shape: Iterable[int], nbytes: int) -> bytes:
    """Return a BundleEntryProto of float32 at the beginning of the first file."""
    return field(1, 1) + field(2, b"".join(field(2, field(1, size)) for size in shape)) + field(5, nbytes)


def block(entries: Iterable[tuple[int, bytes, bytes]]) -> bytes:
    """Return a block of entries (bytes shared with the previous key, new bytes, value)."""
    found = b"".join(varint(n) + varint(len(new)) + varint(len(value)) + new + value for n, new, value in entries)
    return found + struct.pack("<2I", 0, 1)


def index(folder: Path, entries: Iterable[tuple[int, bytes, bytes]], *, handles: int = 1) -> Path:
    """Write an index of one block of entries, to which `handles` of its blocks lead; and a file of 64 bytes."""
    data = block([(0, b"", field(1, 1)), *entries])
    handle = varint(0) + varint(len(data))
    where = block([(0, b"%08d" % each, handle) for each in range(handles)])
    place = len(data) + 5
    footer = (varint(0) + varint(0) + varint(place) + varint(len(where))).ljust(40, b"\0")
    whole = data + bytes(5) + where + bytes(5) + footer + struct.pack("<Q", 0xDB4775248B80FB57)
    (folder / "m.index").write_bytes(whole)
    (folder / "m.data-00000-of-00001").write_bytes(bytes(64))
    return folder / "m.index"


def shared_keys(folder: Path) -> Path:
    long = b"x" * MEBI
    rest = [(MEBI, b"%06d" % each, entry([1], 4)) for each in range(20_000)]
    return index(folder, [(0, long, entry([1], 4)), *rest])


def shared_shorter_keys(folder: Path) -> Path:
    long = b"x" * 4000
    rest = [(4000, b"%06d" % each, entry([1], 4)) for each in range(50_000)]
    return index(folder, [(0, long, entry([1], 4)), *rest])


def blocks_over_each_other(folder: Path) -> Path:
    return index(folder, [(0, b"a", entry([16 * 1024], 4))] * 1000, handles=1000)


def hundred_axes(folder: Path) -> Path:
    return index(folder, [(0, b"a", entry([1] * 100, 4))])


def huge_empty(folder: Path) -> Path:
    return index(folder, [(0, b"a", entry([0, 1 << 62, 1 << 62], 0))])


BOMBS: dict[str, Callable[[Path], Path]] = {
    "members": lambda folder: many_members(folder / "m.keras", 99_990),
    "members of a PyTorch file": lambda folder: many_members(folder / "m.pt", 99_990),
    **{
        make.__name__: make
        for make in (
            assets, weights_in_archive, repeated, zip_bomb, endless, copied_shapes, doubled, long_names, empty_sets,
            many_groups, long_paths, one_file_under_many_names, shared_keys, shared_shorter_keys,
            blocks_over_each_other,
            hundred_axes, huge_empty,
        )
    },
}  # fmt: skip
