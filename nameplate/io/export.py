"""Export: a SavedModel for serving, or an ONNX file, whose inputs and outputs have names."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from nameplate.arguments import checked
from nameplate.checkpoint import durable
from nameplate.errors import as_path
from nameplate.formats.registry import open_weights
from nameplate.formats.saved_model import NAMES
from nameplate.graph.keras_private import inputs_struct, stack_graph
from nameplate.graph.model_weights import read
from nameplate.graph.name_contract import recheck
from nameplate.graph.tree import output_names, require_built, variables
from nameplate.io.onnx_file import ExportError, write_onnx
from nameplate.naming import names


@checked
def export(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    classes: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Write a model for serving: a SavedModel in a new directory, or an ONNX file; both run without the model's code.

    A SavedModel's signature `serving_default`, and the graph of an ONNX file, take inputs and return outputs by name:
    the names of the input layers and of the outputs, or the keys if the model was built with dictionaries. The batch
    size of every input is open. What is written appears by one rename.

    Proved: that a SavedModel has each variable by its name and value; that onnxruntime computes the model's outputs
    from an ONNX file, for random inputs. Not proved: what the graph of a SavedModel computes.

    Args:
        model: built, functional or sequential; a subclassed model has no named inputs.
        path: a directory, or an `.onnx` file, that does not exist yet.
        format: "savedmodel" or "onnx"; None: "onnx" if the path ends with `.onnx`, else "savedmodel".
        classes: the names of the classes of each output, `{"label": ["cat", "dog"]}`: as JSON in
            `assets.extra/classes.json` of a SavedModel, or under `classes` in the metadata of an ONNX file.

    Raises:
        ExportError: if the model has no named inputs and outputs, two have the same name, `path` exists, Keras cannot
            convert a layer, or the extra `onnx` is not installed.
    """
    if format not in (None, "savedmodel", "onnx"):
        raise ExportError(f"format={format!r}: savedmodel or onnx; nameplate.save writes .keras and weights")
    require_built(model)
    if isinstance(model, keras.Sequential) and stack_graph(model) is None:
        raise ExportError(f"{model.name!r} has no named inputs: begin it with a keras.Input")
    target = as_path(path)
    if target.exists() or target.is_symlink():
        raise ExportError(f"{target} exists already; export to a new directory")
    recheck(model)
    inputs = _inputs(model)
    stack = stack_graph(model) if isinstance(model, keras.Sequential) else None
    outputs = output_names(stack or model)
    _refuse_names(model, [*inputs], outputs)
    if unknown := [name for name in classes or {} if name not in outputs]:
        raise ExportError(f"classes: no output {unknown[0]!r}; {model.name!r} has {', '.join(outputs)}")
    texts = json.dumps({name: list(values) for name, values in (classes or {}).items()}, ensure_ascii=False)
    with tempfile.TemporaryDirectory(prefix=".nameplate-", dir=target.parent) as folder:
        draft = Path(folder) / "export"
        if format == "onnx" or (format is None and target.suffix == ".onnx"):
            write_onnx(model, draft, inputs, outputs, about={"classes": texts} if classes else {})
            durable.put_in_place(draft, target)
            return
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint("serving_default", _endpoint(model, [*inputs], outputs), input_signature=[inputs])
        archive.write_out(str(draft), verbose=False)
        _add_names(model, draft)
        if classes:
            (draft / "assets.extra").mkdir()
            (draft / "assets.extra" / "classes.json").write_text(f"{texts}\n", encoding="utf-8")
        durable.put_in_place(draft, target)


def _add_names(model: keras.Model, draft: Path) -> None:
    """Add the qualified names of the variables, in Keras' order, and prove that the values are right.

    In a SavedModel itself the variables of two nested models may have the same name, `c1/kernel`.
    """
    qualified = {id(variable): name for name, variable in variables(model).items()}
    listed = [qualified.get(id(variable), "") for variable in model.variables]
    (draft / NAMES).write_text(json.dumps({"version": 1, "variables": listed}), encoding="utf-8")
    weights = read(model)
    with open_weights(draft) as arrays:
        lost = [name for name in listed if name and (name not in arrays or not _same(arrays[name], weights[name]))]
    if lost:
        raise ExportError(f"not exported, since these would come back different: {', '.join(lost[:20])}")


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def _inputs(model: keras.Model) -> dict[str, Any]:
    """Return `{name: specification}` of each input."""
    if inputs_struct(model) is None and not isinstance(model, keras.Sequential):
        raise ExportError(
            f"{model.name!r} is a subclassed model without named inputs; wrap it: keras.Model(input, model(input))"
        )
    struct = inputs_struct(model)
    tensors = struct if isinstance(struct, Mapping) else {tensor.name: tensor for tensor in model.inputs}
    return {
        str(name): keras.InputSpec(shape=(None, *tensor.shape[1:]), dtype=tensor.dtype, name=str(name))
        for name, tensor in tensors.items()
    }


def _endpoint(model: keras.Model, inputs: list[str], outputs: list[str]) -> Any:
    """Return a function from named inputs to named outputs."""
    struct = inputs_struct(model)

    def serve(tensors: Mapping[str, Any]) -> dict[str, Any]:
        ordered = [tensors[name] for name in inputs]  # TensorFlow sorts a dictionary by its keys
        if struct is None:  # a Sequential has one input
            results = model(ordered[0], training=False)
        else:
            packed = dict(tensors) if isinstance(struct, Mapping) else keras.tree.pack_sequence_as(struct, ordered)
            results = model(packed, training=False)
        return results if isinstance(results, dict) else dict(zip(outputs, keras.tree.flatten(results), strict=True))

    return serve


def _refuse_names(model: keras.Model, inputs: list[str], outputs: list[str]) -> None:
    if not outputs:
        raise ExportError(f"{model.name!r} has no named outputs")
    faults = [f"  {name!r}: {what}" for name in (*inputs, *outputs) if (what := names.fault(name))]
    faults += [f"  {name!r}: two outputs have this name" for name in set(outputs) if outputs.count(name) > 1]
    if faults:
        raise ExportError("\n".join([f"{model.name!r} cannot be exported by names:", *sorted(faults)]))
