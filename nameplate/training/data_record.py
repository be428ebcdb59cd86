"""What checkpoints keep of a run's data: the shapes that its model is built for, and what predictions need to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nameplate import checkpoint as store
from nameplate.data.dataset import Dataset, Field, Shapes
from nameplate.errors import NameplateError
from nameplate.formats import limits
from nameplate.naming.names import fault
from nameplate.training.damaged_data import digest

_LARGEST = 1 << 31  # of a dimension
_MOST = 16  # dimensions


@dataclass(frozen=True)
class DataRecord:
    """What predictions need to know of the data beside shapes."""

    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # names of each output's classes, if known
    columns: tuple[str, ...] = ()  # of a table: those that are inputs, in their order
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # the values of those that are text


def plain_record(dataset: Dataset) -> dict[str, Any]:
    """Return the shapes of a run's data, and its `DataRecord`, as plain data for its checkpoints."""
    return {
        "inputs": {name: [list(field.shape), field.dtype] for name, field in dataset.inputs.items()},
        "outputs": dict(dataset.outputs),
        "classes": {name: list(names) for name, names in dataset.classes.items()},
        "columns": list(dataset.columns),
        "categories": {name: list(values) for name, values in dataset.categories.items()},
        **({"skipped": skipped} if (skipped := digest(dataset.skipped)) else {}),
    }


def stored_record(checkpoint: store.Checkpoint) -> DataRecord:
    """Return the record that a checkpoint has, as far as it is one."""
    shapes = checkpoint.manifest.about.get("shapes")
    plain = shapes if isinstance(shapes, Mapping) else {}
    by_name = (plain.get(key) for key in ("classes", "categories"))
    classes, categories = (
        {name: _texts(texts) for name, texts in (items.items() if isinstance(items, Mapping) else ()) if _texts(texts)}
        for items in by_name
    )
    return DataRecord(classes, _texts(plain.get("columns")), categories)


def _texts(values: Any) -> tuple[str, ...]:
    """Return a list of printable texts as it is, anything else as nothing."""
    plain = isinstance(values, list) and all(isinstance(value, str) and value.isprintable() for value in values)
    return tuple(values) if plain else ()


def stored_shapes(checkpoint: store.Checkpoint) -> Shapes | None:
    """Return the shapes that a checkpoint's model was built for; None if the checkpoint does not have them.

    In checkpoints of earlier versions they are in the configuration of the model, if it is a graph of layers.
    """
    about = checkpoint.manifest.about.get("shapes")
    shapes = _from_plain(about) if isinstance(about, Mapping) else None
    return shapes or _from_graph(checkpoint)


def _from_plain(about: Mapping[str, Any]) -> Shapes | None:
    try:
        inputs = {name: _field(*form) for name, form in about["inputs"].items()}
        outputs = {name: _size(units) for name, units in about["outputs"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    named = inputs and outputs and not any(fault(name) for name in (*inputs, *outputs))
    return Shapes(inputs, {name: units for name, units in outputs.items() if units}) if named else None


def _from_graph(checkpoint: store.Checkpoint) -> Shapes | None:
    try:
        config = limits.parsed(checkpoint.model, f"{checkpoint.path}: its model")
        inner = config["config"]
        layers = {layer["config"]["name"]: layer for layer in inner["layers"] if isinstance(layer, dict)}
        ports = {name: layer["config"] for name, layer in layers.items() if layer["class_name"] == "InputLayer"}
        inputs = {
            name: _field((port.get("batch_shape") or port["batch_input_shape"])[1:], port["dtype"])
            for name, port in ports.items()
        }
        outputs = {name: _units(checkpoint, name) for name in _names(inner["output_layers"])}
    except (NameplateError, KeyError, TypeError, ValueError, AttributeError):
        return None
    complete = bool(inputs and outputs) and all(outputs.values())
    return Shapes(inputs, {name: units for name, units in outputs.items() if units}) if complete else None


def _names(leaves: Any) -> list[str]:
    """Return the layers in `[layer, call, output]`, or in several of these."""
    if isinstance(leaves, dict):
        leaves = list(leaves.values())
    return [leaves[0]] if isinstance(leaves[0], str) else [str(leaf[0]) for leaf in leaves]


def _units(checkpoint: store.Checkpoint, layer: str) -> int | None:
    """Return the last dimension of an output layer's weights."""
    records = checkpoint.weights.records
    shapes = (tuple(records[name].shape) for name in (f"{layer}/bias", f"{layer}/kernel") if name in records)
    return next((shape[-1] for shape in shapes if shape), None)


def _field(shape: Any, dtype: Any) -> Field:
    if len(shape) > _MOST or not isinstance(dtype, str):
        raise ValueError("not a shape")
    return Field(tuple(_size(size) for size in shape), dtype)


def _size(size: Any) -> Any:
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or not 0 < size < _LARGEST):
        raise ValueError("not a size")
    return size
