"""A `.keras` file made anew out of what was read of another: what Keras then reads is ours to the last byte."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from models.formats import archive as archives
from models.formats.hdf5 import Hdf5File
from models.formats.keras_file import ASSETS, CONFIG, METADATA, WEIGHTS, open_part, read_config
from models.formats.vetting import uncompiled
from models.store import dtypes

_LARGEST_ASSET = 1 << 30  # bytes


def write_copy(source: Path, target: Path) -> None:
    """Write the configuration, weights and assets of a `.keras` file to a new one, by way of plain values.

    Nothing of the old archive's structure comes along, nor of its HDF5 file's: both are read with limits.

    Raises:
        FileFormatError: as `models.formats.keras_file.read_keras_table`.
    """
    with archives.opened(source, ".keras") as archive, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as copy:
        for member in (CONFIG, METADATA):
            if member in archive.namelist():
                copy.writestr(member, json.dumps(uncompiled(read_config(archive, source, member))))
        for name in archive.namelist():
            if name.startswith(ASSETS) and not name.endswith("/"):
                copy.writestr(name, archives.member(archive, name, source, largest=_LARGEST_ASSET))
        part = target.with_name("part.weights.h5")
        with open_part(archive, source) as weights:
            _write_hdf5(part, weights)
        copy.write(part, WEIGHTS)
    part.unlink()


def _write_hdf5(path: Path, source: Hdf5File) -> None:
    """Write the groups, texts and arrays of one HDF5 file to another; slots of an optimizer stay behind."""
    import h5py

    with h5py.File(path, "w") as file:
        for where, texts in source.contents.attributes.items():
            if where.partition("/")[0] != "optimizer":
                file.require_group(where or "/").attrs.update(texts)
        for where, (_, dtype) in source.contents.datasets.items():
            if where.partition("/")[0] == "optimizer" or dtypes.of_name(dtype) is None:
                continue
            dataset = file.create_dataset(where, data=source.read(where))
            if dtype == "bfloat16":
                dataset.attrs["dtype"] = dtype  # as keras 3.15 reads it back
