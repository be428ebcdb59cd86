"""What a rebuilt model still lacks: the original's values, flags and vocabularies, and the names it was asked for."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from typing import Any

import keras

from nameplate.graph import explicit_names, keras_private

Chain = list[tuple[frozenset[str], str]]  # of a layer and its containers, innermost first: old names, new name
Told = tuple[str, str | None, list[str]]  # own name, path, paths of the variables that `held` returns


def carry(pairs: Sequence[tuple[Any, Any]], *, done: Container[int] = ()) -> None:
    """Copy variables, seeds, flags, lambdas and vocabularies from each layer to its copy.

    Variables whose ids are in `done` have their values.
    """
    for source, target in pairs:
        if not isinstance(source, keras.Layer):
            continue
        if hasattr(source, "load_assets") or hasattr(source, "adapt"):
            _carry_assets(source, target)
        held = zip(keras_private.own_variables(source), keras_private.own_variables(target), strict=True)
        for old, new in held:
            if id(new) not in done:
                new.assign(old.value)
        seeds = zip(keras_private.seed_generators(source), keras_private.seed_generators(target), strict=True)
        for old, new in seeds:
            new.state.assign(old.state.value)
            keras_private.copy_seed(old, new)
        keras_private.copy_flags(source, target)
        if isinstance(source, keras.layers.Lambda):  # inside a wrapper it went through its code's bytes
            keras_private.copy_functions(source, target)


def born_with(layer: Any, source: Any, made: set[int]) -> None:
    """Let a new layer make its variables with the values of another's (`add_weight`), until `born`.

    It saves drawing random numbers that nobody will see. Matched by name and shape, the ids go to `made`; the rest
    begins as usual.
    """
    held = [((each.name, tuple(each.shape)), each) for each in keras_private.own_variables(source)]
    counts = Counter(key for key, _ in held)
    values = {key: each for key, each in held if counts[key] == 1}  # which of two alike is made first, nobody knows
    add_weight = layer.add_weight

    def add_weight_with_value(*arguments: Any, **keywords: Any) -> Any:
        shape = keywords.get("shape", arguments[0] if arguments else ())
        known = values.pop((keywords.get("name"), tuple(shape or ())), None)
        if known is None or len(arguments) > 1:
            return add_weight(*arguments, **keywords)
        value = keras_private.raw(known)
        variable = add_weight(
            *arguments, **{**keywords, "initializer": lambda *_, **__: keras.ops.convert_to_tensor(value)}
        )
        made.add(id(variable))
        return variable

    layer.__dict__["add_weight"] = add_weight_with_value


def born(layer: Any) -> None:
    """Give a layer its own `add_weight` back."""
    layer.__dict__.pop("add_weight", None)


def settle(pairs: Sequence[tuple[Any, Any]], parents: Sequence[int], *, renamed: Mapping[int, str]) -> None:
    """Give every layer and variable of a copy its name and path: those of the original, with the renamed parts new.

    Args:
        pairs: (layer, its copy) of the model itself and then of the walk; the copy may be the layer itself.
        parents: for each of the walk, the place of its container in it; -1 is the model itself.
        renamed: `{id(layer): new own name}`.
    """
    chains: list[Chain] = [[_link(pairs[0][0], renamed)]]
    for (old, _), parent in zip(pairs[1:], parents, strict=True):
        chains.append([_link(old, renamed), *chains[parent + 1]])
    todo = [(old, new, chain) for (old, new), chain in zip(pairs, chains, strict=True)]
    for old, new, _ in todo:
        if new is not old:
            explicit_names.carry(old, new, renamed=id(old) in renamed)
    take([new for _, new, _ in todo], [(chain[0][1], *_paths(old, chain)) for old, _, chain in todo])


def take(layers: Sequence[Any], told: Sequence[Told]) -> None:
    """Give each layer, and each variable that it holds, its name and path; graphs their outputs' names."""
    for layer, (own, path, paths) in zip(layers, told, strict=True):
        keras_private.rename_layer(layer, own, path)
        for variable, wanted in zip(held(layer), paths, strict=True):
            keras_private.rename_variable(variable, wanted)
    for layer in layers:
        if isinstance(layer, keras_private.Functional):
            keras_private.rename_outputs(layer)
        elif isinstance(layer, keras.Sequential) and keras_private.stack_graph(layer) is not None:
            keras_private.rename_outputs(keras_private.stack_graph(layer))


def held(layer: Any) -> list[Any]:
    """Return the variables of a layer itself, then the states of its seed generators."""
    return [
        *keras_private.own_variables(layer),
        *(generator.state for generator in keras_private.seed_generators(layer)),
    ]


def _link(layer: Any, renamed: Mapping[int, str]) -> tuple[frozenset[str], str]:
    """Return the names that a layer's part of a path may have had (an assignment may have come later), and its new."""
    last = (getattr(layer, "path", None) or "").rpartition("/")[2]
    return frozenset(each for each in (str(layer.name), last) if each), renamed.get(id(layer), layer.name)


def _paths(layer: Any, chain: Chain) -> tuple[str | None, list[str]]:
    """Return the new path of a layer, and of each variable and seed state of its own."""
    own = getattr(layer, "path", None)
    return (
        None if own is None else _translated(own.split("/"), chain),
        [
            "/".join([part for part in (_translated(parts[:-1], chain), parts[-1]) if part])
            for parts in (variable.path.split("/") for variable in held(layer))
        ],
    )


def _translated(parts: list[str], chain: Chain) -> str:
    """Return a path with the name of each container in the chain replaced, matched from the inside out."""
    parts = list(parts)
    place = len(parts) - 1
    for olds, new in chain:
        while place >= 0 and parts[place] not in olds and _is_seed(parts[place]):
            place -= 1
        if place < 0:
            break
        if parts[place] in olds:
            parts[place] = new
            place -= 1
    return "/".join(parts)


def _is_seed(part: str) -> bool:
    return part.startswith("seed_generator")


def _carry_assets(source: Any, target: Any) -> None:
    """Carry what a preprocessing layer learned and keeps beside its variables, by Keras' own saving hooks."""
    store: dict[str, Any] = {}
    source.save_own_variables(store)
    target.load_own_variables(store)
    if hasattr(source, "save_assets"):
        with tempfile.TemporaryDirectory(prefix="nameplate-") as folder:
            source.save_assets(folder)
            target.load_assets(folder)
