"""The state of a rebuilt model: the values, flags and vocabularies of the original, then the final names."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from typing import Any

import keras

from nameplate.graph import explicit_names, keras_private

Chain = list[tuple[frozenset[str], str]]  # (old names, new name) of a layer and its containers, innermost first
Names = tuple[str, str | None, list[str]]  # own name, path, paths of the variables that `held` returns


def copy_state(pairs: Sequence[tuple[Any, Any]], *, done: Container[int] = ()) -> None:
    """Copy variables, seeds, flags, lambdas and vocabularies from each layer to its copy.

    Variables whose ids are in `done` have their values already.
    """
    for source, target in pairs:
        if not isinstance(source, keras.Layer):
            continue
        if hasattr(source, "load_assets") or hasattr(source, "adapt"):
            _copy_assets(source, target)
        variables = zip(keras_private.own_variables(source), keras_private.own_variables(target), strict=True)
        for old, new in variables:
            if id(new) not in done:
                new.assign(own_copy(old.value))
        seeds = zip(keras_private.seed_generators(source), keras_private.seed_generators(target), strict=True)
        for old, new in seeds:
            new.state.assign(own_copy(old.state.value))
            keras_private.copy_seed(old, new)
        keras_private.copy_flags(source, target)
        if isinstance(source, keras.layers.Lambda):  # inside a wrapper it was serialized
            keras_private.copy_functions(source, target)


def own_copy(value: Any) -> Any:
    """Return a variable's value for another variable to hold.

    On JAX `assign` keeps the very array it is given, and training donates and so deletes the arrays of its variables.
    """
    return keras.ops.copy(value) if keras.backend.backend() == "jax" else value


def initialize_from(layer: Any, source: Any, made: set[int]) -> None:
    """Make a new layer create its variables with the values of another's, until `restore_initializers`.

    This saves drawing random numbers that would be overwritten. Variables are matched by name and shape, and their ids
    are added to `made`; any others are initialized as usual.
    """
    held = [((variable.name, tuple(variable.shape)), variable) for variable in keras_private.own_variables(source)]
    counts = Counter(key for key, _ in held)
    values = {key: variable for key, variable in held if counts[key] == 1}  # two alike could come in either order
    add_weight = layer.add_weight

    def add_weight_with_value(*arguments: Any, **keywords: Any) -> Any:
        shape = keywords.get("shape", arguments[0] if arguments else ())
        known = values.pop((keywords.get("name"), tuple(shape or ())), None)
        if known is None or len(arguments) > 1:
            return add_weight(*arguments, **keywords)
        value = keras_private.raw(known)
        variable = add_weight(
            *arguments, **{**keywords, "initializer": lambda *_, **__: own_copy(keras.ops.convert_to_tensor(value))}
        )
        made.add(id(variable))
        return variable

    layer.__dict__["add_weight"] = add_weight_with_value


def restore_initializers(layer: Any) -> None:
    """Undo `initialize_from`."""
    layer.__dict__.pop("add_weight", None)


def copy_names(pairs: Sequence[tuple[Any, Any]], parents: Sequence[int], *, renamed: Mapping[int, str]) -> None:
    """Give every layer and variable of a copy the name and path of the original, with the renamed parts replaced.

    Args:
        pairs: (layer, its copy) of the model itself and then of the walk; the copy may be the layer itself.
        parents: for each layer in the walk, the index of its container; -1 is the model itself.
        renamed: `{id(layer): new own name}`.
    """
    chains: list[Chain] = [[_link(pairs[0][0], renamed)]]
    for (old, _), parent in zip(pairs[1:], parents, strict=True):
        chains.append([_link(old, renamed), *chains[parent + 1]])
    for old, new in pairs:
        if new is not old:
            explicit_names.copy_record(old, new, renamed=id(old) in renamed)
    wanted = [(chain[0][1], *_paths(old, chain)) for (old, _), chain in zip(pairs, chains, strict=True)]
    set_names([new for _, new in pairs], wanted)


def set_names(layers: Sequence[Any], wanted: Sequence[Names]) -> None:
    """Set the name and path of each layer and of its own variables, then the output names of the graphs."""
    for layer, (own, path, paths) in zip(layers, wanted, strict=True):
        keras_private.rename_layer(layer, own, path)
        for variable, variable_path in zip(held(layer), paths, strict=True):
            keras_private.rename_variable(variable, variable_path)
    for layer in layers:
        if isinstance(layer, keras_private.Functional):
            keras_private.rename_outputs(layer)
        elif isinstance(layer, keras.Sequential) and keras_private.stack_graph(layer) is not None:
            keras_private.rename_outputs(keras_private.stack_graph(layer))


def held(layer: Any) -> list[Any]:
    """Return the variables of a layer itself, then the states of its own seed generators."""
    return [
        *keras_private.own_variables(layer),
        *(generator.state for generator in keras_private.seed_generators(layer)),
    ]


def _link(layer: Any, renamed: Mapping[int, str]) -> tuple[frozenset[str], str]:
    """Return the names that may stand for a layer in a path, and its new name.

    These are two if somebody assigned `layer.name` after the path was set.
    """
    last = (getattr(layer, "path", None) or "").rpartition("/")[2]
    return frozenset(name for name in (str(layer.name), last) if name), renamed.get(id(layer), layer.name)


def _paths(layer: Any, chain: Chain) -> tuple[str | None, list[str]]:
    """Return the new path of a layer, and those of its own variables and seed states."""
    own = getattr(layer, "path", None)
    return (
        None if own is None else _translated(own.split("/"), chain),
        [
            "/".join([part for part in (_translated(parts[:-1], chain), parts[-1]) if part])
            for parts in (variable.path.split("/") for variable in held(layer))
        ],
    )


def _translated(parts: list[str], chain: Chain) -> str:
    """Return a path with the names of the layers in the chain replaced, matched from the inside out."""
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


def _copy_assets(source: Any, target: Any) -> None:
    """Copy what a preprocessing layer keeps besides its variables, through the hooks by which Keras saves it."""
    store: dict[str, Any] = {}
    source.save_own_variables(store)
    target.load_own_variables(store)
    if hasattr(source, "save_assets"):
        with tempfile.TemporaryDirectory(prefix="nameplate-") as folder:
            source.save_assets(folder)
            target.load_assets(folder)
