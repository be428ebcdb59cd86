"""Adapters (LoRA): Keras' files hold kernels with them merged in; ours hold kernels and adapters beside that."""

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
_MEMBER = "nameplate.safetensors"  # in a `.keras` file, which plain Keras reads without it


def adapted(model: keras.Model) -> dict[str, Any]:
    """Return `{qualified name: variable}` of every layer that has an adapter: the adapter, and all that it adapts."""
    layers = {entry.name for entry in walk(model) if getattr(entry.layer, "lora_enabled", False)}
    return {name: variable for name, variable, owner in owned_variables(model) if owner in layers} if layers else {}


def is_adapter(name: str) -> bool:
    """Tell whether a variable is one of an adapter's, by its name."""
    return names.split(name)[1].startswith(_PREFIX)


def quantized(model: keras.Model) -> list[str]:
    """Return the layers with an adapter over numbers of few bits, which merging would round again."""
    return [
        entry.name
        for entry in walk(model)
        if getattr(entry.layer, "lora_enabled", False) and getattr(entry.layer, "quantization_mode", None) is not None
    ]


def merged(model: keras.Model) -> dict[str, np.ndarray]:
    """Return `{qualified name: value}` of the kernels that Keras' files hold with their adapters merged in."""
    by_id = {id(variable): name for name, variable in adapted(model).items()}
    found = {}
    for entry in walk(model):
        if not by_id or not getattr(entry.layer, "lora_enabled", False):
            continue
        kernel = keras_private.adapted_variable(entry.layer)
        whole = entry.layer.embeddings if hasattr(entry.layer, "embeddings") else entry.layer.kernel
        if id(kernel) in by_id:
            found[by_id[id(kernel)]] = np.asarray(keras.ops.convert_to_numpy(whole))
    return found


def merged_adapters(targets: Mapping[str, Any], source: Any) -> list[str]:
    """Return the adapters among these variables that a file of Keras' has merged into what they adapt."""
    if getattr(source, "format", "") not in _KERAS or any(is_adapter(name) for name in source):
        return []
    return [name for name in targets if is_adapter(name)]


def begin_again(adapters: Sequence[str], targets: Mapping[str, Any], loaded: Sequence[str]) -> None:
    """Let adapters add nothing where what they adapt was loaded with them merged in; they go on learning from there.

    Keras sets both of their halves to zero, and then neither ever has a gradient.
    """
    layers = {names.split(name)[0] for name in loaded}
    for name in adapters:
        if name.endswith("_b") and names.split(name)[0] in layers:
            targets[name].assign(np.zeros(tuple(targets[name].shape), str(targets[name].dtype)))


def add_adapters(model: keras.Model, path: Path) -> None:
    """Write what `take_adapters` reads into a `.keras` file, where there are adapters."""
    exact = {name: np.array(variable.numpy()) for name, variable in adapted(model).items()}
    if not exact:
        return
    with tempfile.TemporaryDirectory(prefix="nameplate-") as folder:
        store.save_tensors(Path(folder) / _MEMBER, exact)
        archives.add_file(path, _MEMBER, Path(folder) / _MEMBER)


def take_adapters(model: keras.Model, path: Path) -> None:
    """Give a loaded model its adapters, and what they adapt, as they were when it was saved.

    Raises:
        FileFormatError: when they are for another model.
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
    wrong = [name for name in {**targets, **values} if not _fits(targets.get(name), values.get(name))]
    if wrong:
        raise FileFormatError(f"{path}: {_MEMBER} is not of the model in it: {', '.join(sorted(wrong)[:5])}")
    for name, value in values.items():
        targets[name].assign(value)


def _fits(variable: Any, value: np.ndarray | None) -> bool:
    if variable is None or value is None:
        return False
    return tuple(variable.shape) == tuple(value.shape) and str(variable.dtype) == value.dtype.name
