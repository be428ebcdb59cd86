"""A model exported for serving, as a SavedModel whose inputs and outputs have names."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from models import names
from models.errors import NameplateError
from models.freezing import recheck
from models.keras_private import inputs_struct, outputs_struct
from models.tree import output_names


class ExportError(NameplateError):
    """A model that cannot be exported as it is."""


def export(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Write a SavedModel to a new directory, for TensorFlow Serving and others, without the code that made it.

    Its signature `serving_default` takes each input by its name and returns each output by its name: those of
    `model.input_names` and of the losses, or the keys where the model was made with dictionaries. The first axis of every
    input is free. The directory appears by one rename.

    Args:
        model: built, functional or sequential: a subclassed model has no named inputs.
        path: a directory that is not there yet.

    Raises:
        ExportError: when the model has no named inputs and outputs, two have one name, or something is at `path`.
    """
    target = Path(path)
    if target.exists() or target.is_symlink():
        raise ExportError(f"{target} is there already; an export takes a new directory")
    recheck(model)
    inputs = _inputs(model)
    outputs = output_names(model)
    _refuse_names(model, [*inputs], outputs)
    with tempfile.TemporaryDirectory(prefix=".nameplate-", dir=target.parent) as folder:
        draft = Path(folder) / "export"
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint("serving_default", _endpoint(model, outputs), input_signature=[inputs])
        archive.write_out(str(draft), verbose=False)
        os.replace(draft, target)


def _inputs(model: keras.Model) -> dict[str, Any]:
    """Return `{name: specification}` of each input."""
    if inputs_struct(model) is None and not isinstance(model, keras.Sequential):
        raise ExportError(f"{model.name!r} is a subclassed model without named inputs; wrap it: keras.Model(input, m(input))")
    struct = inputs_struct(model)
    tensors = struct if isinstance(struct, Mapping) else {tensor.name: tensor for tensor in model.inputs}
    return {
        str(name): keras.InputSpec(shape=(None, *tensor.shape[1:]), dtype=tensor.dtype, name=str(name))
        for name, tensor in tensors.items()
    }


def _endpoint(model: keras.Model, outputs: list[str]) -> Any:
    """Return a function from named inputs to named outputs."""
    keyed = isinstance(inputs_struct(model), Mapping)

    def serve(inputs: Mapping[str, Any]) -> dict[str, Any]:
        given = dict(inputs) if keyed else keras.tree.pack_sequence_as(model.input, list(inputs.values()))
        found = model(given, training=False)
        return found if isinstance(found, dict) else dict(zip(outputs, keras.tree.flatten(found), strict=True))

    return serve


def _refuse_names(model: keras.Model, inputs: list[str], outputs: list[str]) -> None:
    if not outputs and outputs_struct(model) is None:
        raise ExportError(f"{model.name!r} has no named outputs")
    faults = [f"  {name!r}: {what}" for name in (*inputs, *outputs) if (what := names.fault(name))]
    faults += [f"  {name!r}: two outputs have this name" for name in set(outputs) if outputs.count(name) > 1]
    if faults:
        raise ExportError("\n".join([f"{model.name!r} cannot be exported by names:", *sorted(faults)]))
