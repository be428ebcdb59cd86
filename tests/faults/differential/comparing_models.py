"""What a model that a verb gives must have in common with the one it was made from."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

import nameplate


@dataclass(frozen=True)
class Snapshot:
    """Everything about a model that a verb must not change, by qualified name."""

    names: list[str]
    classes: dict[str, str]
    configs: dict[str, str]  # of layers that hold no others
    flags: dict[str, bool]  # whether a layer trains
    values: dict[str, bytes]  # of variables
    ties: set[frozenset[str]]  # variables by the layers that they are reached from
    count: int


def snapshot(model: keras.Model, *, seeds: bool = True) -> Snapshot:
    """Return what a model is now, with the states of its seed generators or without."""
    layers = nameplate.layers(model)
    real = {name: layer for name, layer in layers.items() if isinstance(layer, keras.Layer)}
    return Snapshot(
        names=list(layers),
        classes={name: type(layer).__name__ for name, layer in layers.items()},
        configs={name: config_of(layer) for name, layer in real.items() if not layer._layers},
        flags={name: bool(layer.trainable) for name, layer in real.items()},
        values={
            name: value.tobytes()
            for name, value in nameplate.read(model).items()
            if seeds or "seed_generator" not in name
        },
        ties=_ties(real),
        count=len(model.variables),
    )


def config_of(layer: keras.Layer) -> str:
    """Return a layer's configuration without names."""
    return json.dumps(_nameless(keras.saving.serialize_keras_object(layer)["config"]), sort_keys=True, default=str)


def _nameless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nameless(each) for key, each in value.items() if key not in ("name", "build_config")}
    return [_nameless(each) for each in value] if isinstance(value, list | tuple) else value


def _ties(layers: dict[str, keras.Layer]) -> set[frozenset[str]]:
    """Return, of each variable, the layers that have it: two layers that are tied stand in one set."""
    owners: dict[int, set[str]] = {}
    for name, layer in layers.items():
        for place, variable in enumerate(layer.variables):
            owners.setdefault(id(variable), set()).add(f"{name}:{place}")
    return {frozenset(names) for names in owners.values()}


def differences(
    before: Snapshot, after: Snapshot, rename: Callable[[str], str] = str, *, ordered: bool = True
) -> list[str]:
    """Return what a model lost or changed whose layers are called otherwise now."""
    found = []
    names = [rename(name) for name in before.names]
    if (names if ordered else sorted(names)) != (after.names if ordered else sorted(after.names)):
        found.append(f"layers {after.names} for {names}")
    for what in ("classes", "configs", "flags", "values"):
        old = {rename(name): value for name, value in getattr(before, what).items()}
        new = getattr(after, what)
        apart = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        if apart:
            shown = "" if what == "values" else f": {new.get(apart[0])} for {old.get(apart[0])}"
            found.append(f"{what} of {apart}{shown}")
    ties = {frozenset(_renamed(name, rename) for name in names) for names in before.ties}
    if ties != after.ties:
        found.append(f"ties {sorted(map(sorted, after.ties - ties))} for {sorted(map(sorted, ties - after.ties))}")
    if before.count != after.count:
        found.append(f"{after.count} variables for {before.count}")
    return found


def _renamed(name: str, rename: Callable[[str], str]) -> str:
    layer, _, place = name.rpartition(":")
    return f"{rename(layer)}:{place}"


def not_close(found: list[np.ndarray], expected: list[np.ndarray], what: str = "outputs") -> list[str]:
    """Return whether outputs differ by more than another order of summation in float32."""
    if len(found) != len(expected):
        return [f"{what}: {len(found)} for {len(expected)}"]
    apart = [
        place
        for place, (one, other) in enumerate(zip(found, expected, strict=True))
        if one.shape != other.shape or not np.allclose(one, other, rtol=1e-4, atol=1e-5)
    ]
    return [f"{what} {apart} differ"] if apart else []


def chance() -> tuple[Any, ...]:
    """Return the state of every global generator of random numbers."""
    seeds = keras.src.random.seed_generator.global_seed_generator()
    numbers: Any = np.random.get_state()
    return random.getstate(), numbers[1].tobytes(), numbers[2], np.asarray(seeds.state).tobytes()
