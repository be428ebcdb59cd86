"""An ONNX file by Keras' own exporter, with names, compared with the model by onnxruntime."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import keras
import numpy as np

from nameplate.errors import NameplateError, cause
from nameplate.graph.keras_private import inputs_struct
from nameplate.graph.sample_outputs import run
from nameplate.graph.tree import layers

_CLOSE = 1e-4  # of the largest value of an output


class ExportError(NameplateError):
    """A model that cannot be exported as it is."""


def write_onnx(
    model: keras.Model,
    path: Path,
    inputs: Mapping[str, Any],
    outputs: Sequence[str],
    *,
    about: Mapping[str, str],
) -> None:
    """Write a model with these inputs and outputs to a file that does not exist, and prove what it computes.

    `about` is added to the metadata of the file.

    Raises:
        ExportError: a library is missing, a layer has no counterpart, or other numbers come out.
    """
    onnx, runtime, _ = (_library(name) for name in ("onnx", "onnxruntime", "tf2onnx"))
    values, expected = run(model)  # it also counts as called, which Keras asks for
    # Keras flattens a dictionary in the order of its keys.
    taken = sorted(inputs) if isinstance(inputs_struct(model), Mapping) else list(inputs)
    is_keyed = not isinstance(model, keras.Sequential) and isinstance(model.output, Mapping)
    given = sorted(outputs) if is_keyed else list(outputs)
    try:
        with _quiet(), _statistics_in_graph(model):
            model.export(str(path), format="onnx", verbose=False)
        graph = onnx.load(str(path))
        _rename(graph.graph, dict(zip([port.name for port in graph.graph.input], taken, strict=True)))
        _rename(graph.graph, dict(zip([port.name for port in graph.graph.output], given, strict=True)))
        for key, text in about.items():
            graph.metadata_props.add(key=key, value=text)
        path.unlink()
        onnx.save(graph, str(path))
        found = runtime.InferenceSession(str(path)).run(given, dict(zip(taken, map(np.asarray, values), strict=True)))
    except Exception as error:  # of three libraries
        raise ExportError(f"{model.name!r} cannot be written as ONNX: {cause(error)}") from error
    for name, one, other in zip(given, found, expected, strict=True):
        largest = float(np.abs(np.asarray(one, np.float64) - other).max(initial=0))
        if one.shape != other.shape or not largest <= _CLOSE * max(1.0, float(np.abs(other).max(initial=0))):
            raise ExportError(f"{model.name!r} as ONNX computes another {name!r}: the values differ by {largest:.3g}")


@contextlib.contextmanager
def _statistics_in_graph(model: keras.Model) -> Iterator[None]:
    """Let the statistics of Normalization layers be constants of what is traced meanwhile.

    They are eager tensors, which a trace captures and Keras' exporter then makes inputs of the graph (keras 3.15.1).
    """
    norms = [each for each in layers(model).values() if isinstance(each, keras.layers.Normalization)]
    held = [(each, each.mean, each.variance) for each in norms]
    for each, mean, variance in held:
        each.mean, each.variance = (keras.ops.convert_to_numpy(values) for values in (mean, variance))
    try:
        yield
    finally:
        for each, mean, variance in held:
            each.mean, each.variance = mean, variance


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep off the screen what tf2onnx writes: lines for every pass, and warnings about NumPy."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ExportError(f"ONNX needs {name}, which is not installed: pip install 'nameplate[onnx]'") from error


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    """Rename tensors of an ONNX graph; a name that is taken already is moved out of the way first."""
    taken = {name for node in graph.node for name in (*node.input, *node.output)} - names.keys()
    moved = {name: f"{name}__inner" for name in names.values() if name in taken}
    every = {**moved, **names}
    for port in (*graph.input, *graph.output):
        port.name = names.get(port.name, port.name)
    for tensor in (*graph.initializer, *graph.value_info):
        tensor.name = every.get(tensor.name, tensor.name)
    for node in graph.node:
        for ports in (node.input, node.output):
            ports[:] = [every.get(name, name) for name in ports]
