"""The variables of a SavedModel or a TensorFlow checkpoint by name; the graph itself is never opened."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from nameplate.checkpoint import tensor_names
from nameplate.errors import FileFormatError
from nameplate.formats import limits, tensor_bundle
from nameplate.formats.arrays import Arrays
from nameplate.formats.name_table import Array, NameTable, of_arrays
from nameplate.formats.tensor_bundle import Bundle

GRAPH = "saved_model.pb"
NAMES = "nameplate.json"  # written by our export: the qualified names of `variables/0`, `variables/1`, ... in order
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_COPIES = ("_all_variables/", "trainable_variables/", "non_trainable_variables/")  # Keras' export stores each twice
_SLOT = "/.OPTIMIZER_SLOT/"


def read_saved_model_table(path: Path) -> NameTable:
    """Return the table of a SavedModel's variables.

    Raises:
        FileFormatError: as `open_saved_model`.
    """
    arrays = open_saved_model(path)
    return of_arrays(path.name, [Array(name, form.shape, form.dtype) for name, form in arrays.forms.items()])


def open_saved_model(path: Path) -> Arrays:
    """Open the variables of a SavedModel directory, or of the `<prefix>.index` of a TensorFlow checkpoint.

    A variable has its name in the graph (`stem/kernel`), or its key where that name is missing or not unique.

    Raises:
        FileFormatError: when there are no variables, or the index is invalid.
    """
    prefix = path / "variables" / "variables" if path.is_dir() else path.with_name(path.name.removesuffix(".index"))
    for file in (prefix.parent, prefix.with_name(f"{prefix.name}.index")):
        if file.is_symlink():
            raise FileFormatError(f"{path}: {file.name} is a link; such files are refused")
    bundle = Bundle(prefix)
    keys = [key for key in bundle.entries if not key.startswith(_COPIES) and _SLOT not in key]
    given = _graph_names(bundle, path) | _exported_names(path)
    owners: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        owners[given.get(key, "")].append(key)
    arrays = []
    for key in keys:
        own = given.get(key, "")
        name = own if own and len(owners[own]) == 1 else key.removesuffix(_VALUE)
        if fault := tensor_names.foreign_fault(name):
            raise FileFormatError(f"{path}: the name {name!r:.120} {fault}")
        entry = bundle.entries[key]
        arrays.append(Array(name, entry.shape, entry.dtype, key))
    kind = "SavedModel" if path.is_dir() else "TensorFlow checkpoint"
    return Arrays(arrays, bundle.read, path=path, format=kind, budget=bundle.budget)


def _exported_names(path: Path) -> dict[str, str]:
    """Return `{key: qualified name}` from the file that our export writes beside the graph."""
    file = path / NAMES
    if not path.is_dir() or file.is_symlink() or not file.is_file():
        return {}
    try:
        listed = limits.read(file)["variables"]
    except (OSError, KeyError, TypeError) as error:
        raise FileFormatError(f"{file} is not what an export writes: {error!r:.200}") from None
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise FileFormatError(f"{file} is not what an export writes")
    return {f"variables/{index}{_VALUE}": name for index, name in enumerate(listed) if name}


def _graph_names(bundle: Bundle, path: Path) -> dict[str, str]:
    """Return `{key: name}` from the object graph (tensorflow/core/protobuf/trackable_object_graph.proto)."""
    given = {}
    try:
        for node in tensor_bundle.messages(tensor_bundle.fields(bundle.object_graph()), 1):
            for attribute in tensor_bundle.messages(tensor_bundle.fields(node), 2):
                parts = tensor_bundle.fields(attribute)
                given[tensor_bundle.text(parts, 3)] = tensor_bundle.text(parts, 2)
    except (ValueError, IndexError) as error:
        raise FileFormatError(f"{path}: its object graph is damaged ({error})") from None
    return given
