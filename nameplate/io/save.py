"""Save: a model written to a file, after proof that it loads again."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from nameplate import checkpoint as store
from nameplate.arguments import checked
from nameplate.checkpoint import durable
from nameplate.errors import FileFormatError, NameplateError, as_path, cause
from nameplate.formats.pytorch_file import write_state_dict
from nameplate.formats.pytorch_weights import to_torch
from nameplate.formats.registry import open_weights
from nameplate.graph import equivalence, keras_private
from nameplate.graph.constructor_arguments import completed
from nameplate.graph.equivalence import computes_otherwise, differing
from nameplate.graph.global_state import deep_graphs
from nameplate.graph.model_weights import read
from nameplate.graph.name_contract import recheck
from nameplate.graph.serializable import advice, custom_objects, lost_names
from nameplate.graph.tree import named, require_built, require_model, seeds, walk
from nameplate.io.channel_order import rows_by_layer
from nameplate.io.load_model import UnbuildableError, load, loaded
from nameplate.io.load_weights import classes_of, plan_weights
from nameplate.io.lora_files import add_adapters, is_adapter, merged, quantized, restore_adapters
from nameplate.io.name_metadata import add_names, names_and_config, restore_names
from nameplate.naming import policy as policies
from nameplate.naming.policy import NamingError, Policy

__all__ = ["SavingError", "load", "save"]

_LOADABLE = Policy(automatic=True)  # grammar and uniqueness, which every format requires


class SavingError(NameplateError):
    """A model that would not come back from the file as it is."""


@checked
def save(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    modules: Mapping[str, str] | None = None,
    counters: Mapping[str, Any] | None = None,
) -> None:
    """Write a model to a file, after proving that it comes back with its names and weights.

    The suffix selects the format: `.keras` is the whole model, including the names inside classes of the user's, which
    Keras does not store; `.weights.h5`, `.safetensors` and PyTorch's `.pt` and `.pth` are the weights. The file appears
    by one rename.

    Proved, of a `.keras` file by loading it: names, weights, which layers share variables, configurations,
    constructor arguments, and the outputs if a class of the user's computes them and inputs can be made; of weights
    alone by reading them: names and values. Not proved: state that code keeps outside the model, optimizers, metrics,
    the states of seed generators, and that another process finds the user's classes.

    Args:
        model: a built model.
        path: a file, which is replaced if it exists.
        modules: `{PyTorch module: layer}` for `.pt`, as of `nameplate.formats.pytorch_weights.torchvision_resnet`;
            other layers keep their names, with dots.
        counters: PyTorch's `num_batches_tracked` for `.pt`; 0 for those not listed.

    Raises:
        NamingError: for names that Keras could save but not load: duplicates, slashes, names that fail in graph mode.
        SavingError: if the file could not be loaded or would come back different; then `path` is not written.
    """
    require_model(model)
    if not isinstance(path, str | os.PathLike):
        raise SavingError(f"a path is needed, not a {type(path).__name__}")
    target = as_path(path)
    if not target.parent.is_dir():
        raise SavingError(f"{target}: there is no directory {target.parent}")
    suffix = next((suffix for suffix in (*_WRITERS, *_TORCH) if target.name.endswith(suffix)), None)
    if suffix is None:
        raise FileFormatError(
            f"{target}: whole models are saved to and loaded from .keras files, weights saved to "
            f"{', '.join([*_WRITERS, *_TORCH])}; nameplate.export writes a SavedModel"
        )
    if (modules or counters) and suffix not in _TORCH:
        raise SavingError(f"{target}: modules and counters are for {' and '.join(_TORCH)} files")
    recheck(model)
    if suffix != ".keras":
        require_built(model)
    _refuse_names(model)
    with tempfile.TemporaryDirectory(prefix=".nameplate-", dir=target.parent) as folder:
        draft = Path(folder) / target.name
        if suffix in _TORCH:
            _write_torch(model, draft, modules or {}, counters or {})
        else:
            _WRITERS[suffix](model, draft)
        durable.put_in_place(draft, target)


def round_trip(model: keras.Model) -> keras.Model:
    """Return the model as it comes back from a temporary `.keras` file, after comparing names and weights.

    Raises:
        NamingError, SavingError: as `save`.
    """
    recheck(model)
    _refuse_names(model)
    with tempfile.TemporaryDirectory(prefix="nameplate-") as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are saving a model that has not yet been built")
        return _write_keras(model, Path(folder) / "model.keras")


# ---- one function a format --------------------------------------------------------------------------------------


def _write_keras(model: keras.Model, draft: Path) -> keras.Model:
    layers = [model, *(entry.layer for entry in walk(model))]
    _refuse_split(model)
    try:
        with (
            deep_graphs(len(layers)),
            completed(layers),
            keras_private.marked(equivalence.in_wrappers(model)),
        ):
            keras.saving.save_model(model, draft)
    except Exception as error:  # Keras and the user's classes may raise anything
        raise SavingError("\n  ".join([f"{model.name!r} cannot be saved: {cause(error)}", *unsavable(model)])) from None
    add_names(model, draft)
    add_adapters(model, draft)
    return _prove(model, draft)


def _write_weights_h5(model: keras.Model, draft: Path) -> None:
    rounded = quantized(model)
    if rounded:
        raise SavingError(
            "not saved, since a .weights.h5 file holds kernels with their LoRA adapters merged in, and merging would "
            f"round these quantized kernels once more: {', '.join(rounded[:20])}. Save a .keras or .safetensors file"
        )
    with deep_graphs(len(walk(model))):
        model.save_weights(draft)
    _prove_weights(model, draft)


def _write_safetensors(model: keras.Model, draft: Path) -> None:
    store.save_tensors(draft, read(model), metadata={"format": "keras"})
    _prove_weights(model, draft)


def _write_torch(model: keras.Model, draft: Path, modules: Mapping[str, str], counters: Mapping[str, Any]) -> None:
    seed_states = {f"{name}/state" for name in seeds(model)}
    weights = {name: value for name, value in read(model).items() if name not in seed_states}
    state = to_torch(weights, classes=classes_of(model), modules=modules, counters=counters, rows=rows_by_layer(model))
    write_state_dict(draft, state)
    with open_weights(draft) as back:
        lost = [name for name, value in state.items() if name not in back or not _equal(back[name], value)]
    if lost:
        raise SavingError(f"not saved, since these would come back different: {', '.join(lost[:20])}")


_TORCH = (".pt", ".pth")
_WRITERS: dict[str, Callable[[keras.Model, Path], object]] = {
    ".keras": _write_keras,
    ".weights.h5": _write_weights_h5,
    ".safetensors": _write_safetensors,
}


# ---- before and after -------------------------------------------------------------------------------------------


def _refuse_names(model: keras.Model) -> None:
    entries = walk(model)
    violations = policies.model_name_violations(model.name)
    violations += policies.violations(_LOADABLE, named(entries)) + lost_names(entries)
    if violations:
        table = policies.text(violations, model=str(model.name), policy=_LOADABLE)
        raise NamingError(f"not saved, since it could not be loaded again: {table}", violations)


def _refuse_split(model: keras.Model) -> None:
    problems = equivalence.between_graphs(model)
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise SavingError(
            f"not saved, since no .keras file holds a layer with weights that several graphs call: {model.name!r} "
            f"would come back with one for each:\n{lines}\nSave only its weights, or nameplate.flatten(model)."
        )


def _prove(model: keras.Model, path: Path) -> keras.Model:
    """Load what was saved, compare it, and return it."""
    layers = [model, *(entry.layer for entry in walk(model))]
    try:
        with keras_private.undisturbed(), keras_private.live_code():  # its code runs in this process already
            wanted, _ = names_and_config(path)
            with deep_graphs(len(wanted.names)):
                copy = loaded(path, path, custom_objects(layers))
            restore_names(copy, wanted, path)
            restore_adapters(copy, path)
    except UnbuildableError as error:
        raise SavingError(f"not saved, since it could not be loaded again: {error.cause}") from None
    except FileFormatError as error:
        raise SavingError(f"not saved, since it could not be loaded again: {error}") from None
    before, after = read(model), read(copy)
    problems = [f"{name}: missing after loading" for name in before if name not in after]
    problems += [f"{name}: only present after loading" for name in after if name not in before]
    kept = [name for name in before if name in after and not _is_seed(name)]
    problems += [f"{name}: other values after loading" for name in kept if not _equal(before[name], after[name])]
    _refuse(model, problems or _unlike(model, copy))
    return copy


def unsavable(model: keras.Model) -> list[str]:
    """Return a line for each class of layers, or of the model, without a usable configuration: why, and what to add.

    Such a model trains, and its weights are saved by name; a file with the whole model cannot be written.
    """
    entries = walk(model)
    layers = [model, *(entry.layer for entry in entries)]
    lines: dict[type, str] = {}
    with completed(layers), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, layer in [(str(model.name), model), *((entry.name, entry.layer) for entry in entries)]:
            if type(layer).__module__.startswith("keras.") or type(layer) in lines:
                continue
            try:
                layer.get_config()
            except Exception as error:  # a class of the user's may raise anything
                what = "has no get_config" if isinstance(error, NotImplementedError) else f"get_config fails: {error!r}"
                lines[type(layer)] = f"{name} ({type(layer).__name__}): {what}; {advice(layer, error)}"
    return list(lines.values())


def _unlike(model: keras.Model, copy: keras.Model) -> list[str]:
    """Return how a loaded model differs from the saved one in configurations, arguments, sharing and outputs."""
    entries, again = walk(model), walk(copy)
    kinds = [(entry.name, type(entry.layer)) for entry in entries]
    if kinds != [(entry.name, type(entry.layer)) for entry in again]:
        return [f"{len(entries)} layers come back as {len(again)}, or of other classes"]
    generators = seeds(copy)
    for name, generator in seeds(model).items():
        generators[name].state.assign(generator.state.value)  # Keras' files do not have them
    pairs = [(model, copy), *((one.layer, other.layer) for one, other in zip(entries, again, strict=True))]
    places = ["the model itself", *(entry.name for entry in entries)]
    problems = differing(pairs, places, [entry.parent for entry in entries], what="after loading")
    return problems or computes_otherwise(model, copy, pairs, what="after loading")


def _prove_weights(model: keras.Model, path: Path) -> None:
    """Read the saved weights by name and compare them."""
    before = read(model)
    if path.name.endswith(".weights.h5"):
        before = {name: value for name, value in before.items() if not is_adapter(name)} | merged(model)
    with open_weights(path) as arrays:
        sources = plan_weights(model, arrays).taken
        problems = [f"{name}: missing after saving" for name in before if name not in sources and not _is_seed(name)]
        differ = [name for name, source in sources.items() if not _equal(before[name], arrays[source])]
    _refuse(model, [*problems, *(f"{name}: other values after saving" for name in differ)])


def _refuse(model: keras.Model, problems: list[str]) -> None:
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise SavingError(f"not saved, since {model.name!r} would come back different:\n{lines}")


def _is_seed(name: str) -> bool:
    return name.endswith("/state")  # which Keras' files do not have


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
