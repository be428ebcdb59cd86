"""Verification: every byte of a checkpoint is read once, and all damage is listed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xxhash import xxh3_128

from nameplate.checkpoint import header, layout
from nameplate.checkpoint.errors import DamagedError, explained, reason
from nameplate.checkpoint.files import PIECE, OpenFiles, patiently
from nameplate.checkpoint.manifest import FileRecord, Manifest, TensorRecord
from nameplate.checkpoint.reading import open_manifest

_NOT_OURS = ".nfs"  # what an NFS client calls a deleted file that is still open somewhere


@dataclass(frozen=True)
class Damage:
    """One difference from what was saved, in `file` and, where it can be located, in one `tensor` of it."""

    file: str
    tensor: str | None
    message: str

    def __str__(self) -> str:
        where = f"{self.file}: tensor {self.tensor}" if self.tensor else self.file
        return f"{where}: {self.message}"


def verify(path: Path) -> list[Damage]:
    """Return all damage in the files and tensors of the checkpoint at `path`; an empty list when it is good.

    Raises `StoreError` when there is no checkpoint, or one of a later format.
    """
    path = Path(path)
    try:
        with explained("Opening", path):
            files, content = patiently(lambda: open_manifest(path))
    except DamagedError as error:
        return [Damage(layout.MANIFEST, None, str(error))]
    try:
        damages = [damage for name in content.files for damage in _verify_file(files, name, content)]
        return damages + _extra_files(files, content)
    finally:
        files.close()


def _extra_files(files: OpenFiles, content: Manifest) -> list[Damage]:
    known = {layout.MANIFEST, *content.files}
    extra = [name for name in files.names() if name not in known and not name.startswith(_NOT_OURS)]
    return [Damage(name, None, "is not part of this checkpoint") for name in extra]


def _verify_file(files: OpenFiles, name: str, content: Manifest) -> list[Damage]:
    record = content.files[name]
    group = layout.group_of(name)
    tensors = {key: tensor for key, tensor in (content.tensors[group] if group else {}).items() if tensor.file == name}
    try:
        size = files.open(name)
        damages = [] if size == record.size else [Damage(name, None, f"has {size} bytes instead of {record.size}")]
        return damages + (
            _verify_regions(files, name, record, tensors) if group else _verify_whole(files, name, record)
        )
    except FileNotFoundError:
        return [Damage(name, None, "is missing")]
    except DamagedError as error:
        return [Damage(name, None, str(error))]
    except OSError as error:
        return [Damage(name, None, f"cannot be read: {reason(error)}")]


def _verify_whole(files: OpenFiles, name: str, record: FileRecord) -> list[Damage]:
    digest = xxh3_128()
    for piece in _pieces(files, name, 0, record.size):
        digest.update(piece)
    return [] if digest.hexdigest() == record.xxh3 else [Damage(name, None, "does not match its hash")]


def _verify_regions(files: OpenFiles, name: str, record: FileRecord, tensors: dict[str, TensorRecord]) -> list[Damage]:
    """Hash the header and each tensor, and the whole file in the same pass."""
    regions: list[tuple[str | None, int, int, str]] = [(None, 0, record.header_size, record.header_xxh3)]
    ordered = sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].nbytes))
    regions += [(key, tensor.offset, tensor.nbytes, tensor.xxh3) for key, tensor in ordered]
    whole = xxh3_128()
    damages = []
    for key, offset, nbytes, expected in regions:
        digest = xxh3_128()
        for piece in _pieces(files, name, offset, nbytes):
            digest.update(piece)
            whole.update(piece)
        if digest.hexdigest() != expected:
            what = "does not match its hash" if key else "its header does not match its hash"
            damages.append(Damage(name, key, what))
    if not damages:
        damages += _compare_header(files, name, record, tensors)
        if whole.hexdigest() != record.xxh3:
            damages.append(Damage(name, None, "does not match its hash"))
    return damages


def _compare_header(files: OpenFiles, name: str, record: FileRecord, tensors: dict[str, TensorRecord]) -> list[Damage]:
    """Return where the header, which other programs read, disagrees with the manifest, which we read."""
    text = files.read(name, 0, record.header_size)
    try:
        if header.length(text[:8], file_size=record.size) != record.header_size:
            raise DamagedError("its header has another length than in the manifest")
        entries = header.decode(text[8:], file_size=record.size).entries
    except DamagedError as error:
        return [Damage(name, None, str(error))]
    expected = {key: tensor.entry for key, tensor in tensors.items()}
    return [
        Damage(name, key, "its header and the manifest differ")
        for key in sorted(entries.keys() | expected.keys())
        if entries.get(key) != expected.get(key)
    ]


def _pieces(files: OpenFiles, name: str, offset: int, nbytes: int) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(min(PIECE, nbytes)))
    for start in range(0, nbytes, PIECE):
        wanted = buffer[: min(PIECE, nbytes - start)]
        yield wanted[: files.read_into(name, offset + start, wanted)]
