"""The settings of a `fit` in a script as plain data, and how they differ from those that a checkpoint was saved under.

A configured run has its settings as a file. A script has objects: an optimizer, a loss, a model, arrays. Each is
described by what decides the numbers that are trained, so that the same script gives the same text in every process.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from xxhash import xxh3_128

from nameplate.data.batches import Batches
from nameplate.data.source import Source, Stream, leaves
from nameplate.engine.private import compile_arguments
from nameplate.errors import FileFormatError, NameplateError
from nameplate.formats import limits
from nameplate.training import config_diff
from nameplate.training.arguments import Arguments
from nameplate.training.config_diff import ConfigDiff

_OBJECTIVE = ("loss", "loss_weights", "metrics", "weighted_metrics")
CALL = "call"  # the key that says which verb wrote the settings; no configuration of `python -m trainer` has it
_CONTINUES = "epochs_continue"  # missing in runs of earlier versions, whose epochs have orders of their own
_ADVICE = "Set them back, choose another run=..., or resume all the same with resume_changed={names}"

# An optimizer's learning rate changes while it trains, and a notebook may call `fit` again with the same object: as it
# was given, and as a run left it.
_given: weakref.WeakKeyDictionary[keras.Optimizer, dict[str, Any]] = weakref.WeakKeyDictionary()
_left: weakref.WeakKeyDictionary[keras.Optimizer, dict[str, Any]] = weakref.WeakKeyDictionary()


def fit_settings(
    model: keras.Model, source: Source | Stream, arguments: Arguments, batches: Batches, *, continues: bool
) -> dict[str, Any]:
    """Return what decides the numbers of a training, as plain data for its checkpoints.

    `continues` says whether an epoch of `steps_per_epoch` continues in the pass over the data of the one before.
    """
    weights = None if arguments.class_weight is None else described(dict(arguments.class_weight))
    return {
        CALL: "nameplate.fit",
        "seed": arguments.seed,
        "fit": {
            "epochs": arguments.epochs,
            "steps": arguments.steps,
            "steps_per_epoch": arguments.steps_per_epoch,
            "global_batch": batches.batch,
            "shuffle": arguments.shuffle,
            "class_weight": weights,
            **({_CONTINUES: True} if continues and arguments.steps_per_epoch else {}),
        },
        "strategy": {"replicas": batches.replicas},
        "optimizer": optimizer_settings(model.optimizer),
        "objective": objective_settings(model),
        "data": data_settings(source),
    }


def has_own_epochs(stored: str) -> bool:
    """Say whether a checkpoint's settings are those of a run whose epochs have `steps_per_epoch` of their own order."""
    try:
        fit = _of_script(stored, "the checkpoint").get("fit")
    except NameplateError:  # which the resume reports
        return False
    return isinstance(fit, dict) and fit.get("steps_per_epoch") is not None and not fit.get(_CONTINUES)


def optimizer_settings(optimizer: keras.Optimizer) -> dict[str, Any]:
    """Return an optimizer's class and arguments as the user gave them, also where a run has changed its rate since."""
    current = _described_optimizer(optimizer)
    if optimizer not in _given or current != _left.get(optimizer):
        _given[optimizer] = _left[optimizer] = current
    return _given[optimizer]


def note_left(optimizer: keras.Optimizer) -> None:
    """Remember an optimizer as a run leaves it: what differs from that later is a change of the user's."""
    if optimizer in _given:
        _left[optimizer] = _described_optimizer(optimizer)


def _described_optimizer(optimizer: keras.Optimizer) -> dict[str, Any]:
    return {"_option_": type(optimizer).__name__, **described(_arguments(optimizer))}


def objective_settings(model: keras.Model) -> dict[str, Any]:
    """Return the loss of a compiled model, its weights, and the names of its metrics."""
    return {
        **{key: described(value) for key, value in compile_arguments(model).items() if key in _OBJECTIVE},
        "measured": sorted(model.get_metrics_result()),
    }


def data_settings(source: Source | Stream) -> dict[str, Any]:
    """Return the number of examples, their structure, and a hash of arrays in memory; of a dataset what it declares."""
    arrays = None if isinstance(source, Stream) else source.arrays()
    return {
        "examples": None if isinstance(source, Stream) else source.size,
        "spec": [f"{leaf.dtype.name} {tuple(leaf.shape)}" for leaf in leaves(source.spec())],
        "content": None if arrays is None else _hash(leaves(arrays)),
    }


def model_settings(text: str) -> dict[str, Any]:
    """Return class, arguments and inputs of every layer by name, from a model's configuration as JSON.

    It is data from a checkpoint: read with the limits of `formats`, and never built.
    """
    tree = limits.parsed(text, "the model of the checkpoint")
    found: dict[str, Any] = {}
    _add_layers(found, tree if isinstance(tree, Mapping) else {}, "")
    return found


def described(value: Any) -> Any:
    """Return a value as plain data that is the same in every process: objects by class and configuration."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, float) and float(np.float32(value)) == value:
        return float(str(np.float32(value)))  # 0.01, where Keras returns the nearest float32
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): described(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [described(each) for each in value]
    if hasattr(value, "get_config"):
        return {"class": type(value).__name__, **described(_arguments(value))}
    return getattr(value, "__qualname__", type(value).__name__)


def agreement(
    settings: Mapping[str, Any], model: str, *, meant: Sequence[str], say: Callable[[str], None]
) -> Callable[[str, str, str], ConfigDiff]:
    """Return a function that compares a checkpoint's settings and model with those of this process.

    It takes both as text, and the name of the checkpoint for messages; differences are reported with `say`, and
    `ConfigDiffError` is raised for those that change the computation and are not `meant`.
    """

    def agree(stored: str, stored_model: str, where: str) -> ConfigDiff:
        old, new = _of_script(stored, where), dict(settings)
        old["model"], new["model"] = model_settings(stored_model), model_settings(model)
        diff = config_diff.agree(config_diff.compare(old, new, defaults={}), meant=meant, where=where, advice=_ADVICE)
        if diff.changes:
            say(config_diff.describe(diff, where=where))
        return diff

    return agree


def _of_script(stored: str, where: str) -> dict[str, Any]:
    """Return the settings that a script's run has stored; refuse those of a configured run."""
    try:
        tree = limits.parsed(stored, f"the settings of {where}")
    except FileFormatError:
        tree = None
    if not isinstance(tree, dict) or CALL not in tree:
        raise NameplateError(
            f"{where} is not of a script: its settings are those of python -m trainer, or damaged. Choose another "
            "run=..., or take its weights: nameplate.load_weights(model, CHECKPOINT)"
        )
    return tree


def as_text(settings: Mapping[str, Any]) -> str:
    """Return settings as JSON, which is YAML too: the `config.yaml` of a run and of its checkpoints."""
    return json.dumps(settings, indent=2) + "\n"


def _arguments(thing: Any) -> Mapping[str, Any]:
    try:
        config = thing.get_config()
    except Exception:  # a class of the user's may raise anything, and then its name describes it
        return {}
    return {key: value for key, value in config.items() if key not in ("name", "dtype")}


def _hash(arrays: Sequence[Any]) -> str:
    digest = xxh3_128()
    for array in arrays:
        digest.update(repr((array.dtype.str, array.shape)).encode())
        if array.dtype == object:  # text: each entry with its length
            digest.update(b"".join(_entry(entry) for entry in array.ravel()))
        else:
            digest.update(np.ascontiguousarray(array).data if array.size else b"")
    return digest.hexdigest()


def _entry(entry: str | bytes) -> bytes:
    text = entry.encode() if isinstance(entry, str) else entry
    return b"%d:" % len(text) + text


def _add_layers(found: dict[str, Any], tree: Mapping[str, Any], prefix: str) -> None:
    config = tree.get("config")
    for layer in config.get("layers", ()) if isinstance(config, Mapping) else ():
        own = layer.get("config") if isinstance(layer, Mapping) else None
        if not isinstance(own, Mapping):
            continue
        name = f"{prefix}{own.get('name')}"
        if isinstance(own.get("layers"), list):
            _add_layers(found, layer, f"{name}/")
            own = {}
        found[name] = {"class": layer.get("class_name"), "inputs": _calls(layer.get("inbound_nodes"))} | {
            key: value for key, value in own.items() if key != "name"
        }


def _calls(nodes: Any) -> list[Any]:
    """Return the tensors that a layer is called on, `[layer, call, output]` each, without their shapes."""
    if isinstance(nodes, Mapping):
        history = nodes.get("keras_history")
        return [history] if history is not None else [call for each in nodes.values() for call in _calls(each)]
    return [call for each in nodes for call in _calls(each)] if isinstance(nodes, list) else []
