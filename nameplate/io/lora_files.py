"""LoRA adapters in files: Keras saves kernels with the adapter merged in; our files also have the two apart."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from nameplate import checkpoint as store
from nameplate.errors import FileFormatError
from nameplate.formats import zip_archive as archives
from nameplate.formats.safetensors_file import open_safetensors
from nameplate.graph import keras_private
from nameplate.graph.tree import owned_variables, walk
from nameplate.naming import names

_PREFIX = "lora_"
_KERAS = (".keras", ".weights.h5", ".h5")
_MEMBER = "nameplate.safetensors"  # in a `.keras` file; plain Keras ignores it


def adapted(model: keras.Model) -> dict[str, Any]:
    """Return `{qualified name: variable}` for the layers with an adapter: the adapters and what they adapt."""
    layers = {entry.name for entry in walk(model) if getattr(entry.layer, "lora_enabled", False)}
    return {name: variable for name, variable, owner in owned_variables(model) if owner in layers} if layers else {}


def is_adapter(name: str) -> bool:
    """Return whether a variable belongs to an adapter, by its name."""
    return names.split(name)[1].startswith(_PREFIX)


def quantized(model: keras.Model) -> list[str]:
    """Return the layers with an adapter on a quantized kernel, which merging would round once more."""
    return [
        entry.name
        for entry in walk(model)
        if getattr(entry.layer, "lora_enabled", False) and getattr(entry.layer, "quantization_mode", None) is not None
    ]


def merged(model: keras.Model) -> dict[str, np.ndarray]:
    """Return `{qualified name: value}` of the kernels with their adapters merged in, as Keras saves them."""
    by_id = {id(variable): name for name, variable in adapted(model).items()}
    values = {}
    for entry in walk(model):
        if not by_id or not getattr(entry.layer, "lora_enabled", False):
            continue
        kernel = keras_private.adapted_variable(entry.layer)
        whole = entry.layer.embeddings if hasattr(entry.layer, "embeddings") else entry.layer.kernel
        if id(kernel) in by_id:
            values[by_id[id(kernel)]] = np.asarray(keras.ops.convert_to_numpy(whole))
    return values


def merged_adapters(targets: Mapping[str, Any], source: Any) -> list[str]:
    """Return the adapters among these variables that a file of Keras' has only merged into the kernels."""
    if getattr(source, "format", "") not in _KERAS or any(is_adapter(name) for name in source):
        return []
    return [name for name in targets if is_adapter(name)]


def reset_adapters(adapters: Sequence[str], targets: Mapping[str, Any], loaded: Sequence[str]) -> None:
    """Reset adapters whose kernels were loaded with the adapter merged in, so that they add nothing but can learn.

    Only the second factor becomes zero. Keras sets both to zero, and then neither ever gets a gradient.
    """
    layers = {names.split(name)[0] for name in loaded}
    for name in adapters:
        if name.endswith("_b") and names.split(name)[0] in layers:
            targets[name].assign(np.zeros(tuple(targets[name].shape), str(targets[name].dtype)))


def add_adapters(model: keras.Model, path: Path) -> None:
    """Add the adapters to a `.keras` file, if there are any, for `restore_adapters`."""
    exact = {name: np.array(variable.numpy()) for name, variable in adapted(model).items()}
    if not exact:
        return
    with tempfile.TemporaryDirectory(prefix="nameplate-") as folder:
        store.save_tensors(Path(folder) / _MEMBER, exact)
        archives.add_file(path, _MEMBER, Path(folder) / _MEMBER)


def restore_adapters(model: keras.Model, path: Path) -> None:
    """Give a loaded model its adapters and adapted kernels as they were when it was saved.

    Raises:
        FileFormatError: if they are of another model.
    """
    with archives.opened(path, ".keras") as archive, tempfile.TemporaryDirectory(prefix="nameplate-") as folder:
        if _MEMBER not in archive.namelist():
            return
        copy = Path(folder) / _MEMBER
        archives.copy_member(archive, _MEMBER, path, copy)
        with open_safetensors(copy) as arrays:
            _assign(adapted(model), arrays, path)


def _assign(targets: Mapping[str, Any], arrays: Mapping[str, np.ndarray], path: Path) -> None:
    values = {name: np.asarray(arrays[name]) for name in arrays}
    misfits = [name for name in {**targets, **values} if not _fits(targets.get(name), values.get(name))]
    if misfits:
        raise FileFormatError(f"{path}: {_MEMBER} does not fit the model in it: {', '.join(sorted(misfits)[:5])}")
    for name, value in values.items():
        targets[name].assign(value)


def _fits(variable: Any, value: np.ndarray | None) -> bool:
    if variable is None or value is None:
        return False
    return tuple(variable.shape) == tuple(value.shape) and str(variable.dtype) == value.dtype.name
