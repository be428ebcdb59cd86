"""The shapes that a run's model was built for, as its checkpoints tell them: no data is needed to build it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nameplate import checkpoint as store
from nameplate.data.dataset import Dataset, Field, Shapes
from nameplate.errors import NameplateError
from nameplate.formats import limits
from nameplate.naming.names import fault

_LARGEST = 1 << 31  # of a dimension
_MOST = 16  # dimensions


def told_shapes(dataset: Dataset) -> dict[str, Any]:
    """Return the shapes of a run's data as plain data, for its checkpoints."""
    inputs = {name: [list(each.shape), each.dtype] for name, each in dataset.inputs.items()}
    return {"inputs": inputs, "outputs": dict(dataset.outputs)}


def stored_shapes(checkpoint: store.Checkpoint) -> Shapes | None:
    """Return the shapes that a checkpoint's model was built for, None where it does not tell.

    Checkpoints of earlier versions tell them by the configuration of their model, where it is a graph of layers.
    """
    told = checkpoint.manifest.about.get("shapes")
    found = _plain(told) if isinstance(told, Mapping) else None
    return found or _of_graph(checkpoint)


def _plain(told: Mapping[str, Any]) -> Shapes | None:
    try:
        inputs = {name: _field(*given) for name, given in told["inputs"].items()}
        outputs = {name: _size(units) for name, units in told["outputs"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    named = inputs and outputs and not any(fault(name) for name in (*inputs, *outputs))
    return Shapes(inputs, {name: units for name, units in outputs.items() if units}) if named else None


def _of_graph(checkpoint: store.Checkpoint) -> Shapes | None:
    try:
        config = limits.parsed(checkpoint.model, f"{checkpoint.path}: its model")
        inner = config["config"]
        layers = {each["config"]["name"]: each for each in inner["layers"] if isinstance(each, dict)}
        ports = {name: each["config"] for name, each in layers.items() if each["class_name"] == "InputLayer"}
        inputs = {
            name: _field((each.get("batch_shape") or each["batch_input_shape"])[1:], each["dtype"])
            for name, each in ports.items()
        }
        outputs = {name: _units(checkpoint, name) for name in _names(inner["output_layers"])}
    except (NameplateError, KeyError, TypeError, ValueError, AttributeError):
        return None
    told = bool(inputs and outputs) and all(outputs.values())
    return Shapes(inputs, {name: units for name, units in outputs.items() if units}) if told else None


def _names(leaves: Any) -> list[str]:
    """Return the layers of `[layer, call, output]`, or of several such."""
    if isinstance(leaves, dict):
        leaves = list(leaves.values())
    return [leaves[0]] if isinstance(leaves[0], str) else [str(each[0]) for each in leaves]


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
