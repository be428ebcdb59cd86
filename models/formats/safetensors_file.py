"""Names in a safetensors file, of ours or of others."""

from __future__ import annotations

from pathlib import Path

from models import names
from models.formats.errors import FileFormatError
from models.formats.table import Array, Table, of_arrays
from models.store import header, keys
from models.store.errors import StoreError


def read_safetensors_table(path: Path) -> Table:
    """Return the table of a safetensors file; a name with dots only, as PyTorch writes, is split at its last.

    Raises:
        FileFormatError: when the header is not one, or a name is harmful.
    """
    try:
        with Path(path).open("rb") as file:
            size = Path(path).stat().st_size
            length = int.from_bytes(file.read(8), "little")
            if length > header.LARGEST_HEADER:
                raise FileFormatError(f"{path}: its header would have {length} bytes")
            found = header.decode(file.read(length), file_size=size, name_fault=keys.foreign_fault)
    except (OSError, StoreError) as error:
        raise FileFormatError(f"{path} cannot be read as safetensors: {error}") from None
    dotted = not any(names.SEPARATOR in name for name in found.entries)
    arrays = [
        Array(_with_slash(name) if dotted else name, entry.shape, entry.dtype.name)
        for name, entry in found.entries.items()
        if "@" not in name
    ]
    return of_arrays(Path(path).name, arrays)


def _with_slash(name: str) -> str:
    layer, _, variable = name.rpartition(".")
    return names.join(layer, variable)
