"""Layers that a model calls from several places: which of them a `.keras` file can hold as one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from nameplate.graph import keras_private
from nameplate.graph.constructor_arguments import attribute, is_custom, is_value, parameters, plain, recovered, same
from nameplate.graph.copy_state import held
from nameplate.graph.sample_outputs import unlike
from nameplate.graph.serializable import shared_by_code
from nameplate.graph.tree import direct, owned_variables, walk


def in_wrappers(model: keras.Model) -> list[int]:
    """Return the ids of layers that several places hold, at most one of them a graph, so that marks keep them one."""
    return [id(layer) for layer, _, holders in _shared(model) if sum(map(_is_graph, holders)) < 2]


def between_graphs(model: keras.Model) -> list[str]:
    """Return the layers with weights that several graphs call, with these; a file lists them once for each graph.

    Left out is what the class of the outer graph calls in its constructor, since it does so again.
    """
    problems = []
    for _, name, holders in _shared(model):
        graphs = [each for each in holders if _is_graph(each)]
        listing = [each for each in graphs if _lists(each)]
        coded = [each for each in graphs if not _lists(each) and any(_is_inside(each, outer) for outer in listing)]
        if listing and len(listing) + len(coded) > 1:
            told = " and ".join(repr(str(each.name)) for each in [*listing, *coded])
            problems.append(f"{name}: called in {told}")
    return problems


def _shared(model: keras.Model) -> list[tuple[Any, str, list[Any]]]:
    """Return (layer, its name, all that hold it directly) of each with weights that is held several times."""
    entries = walk(model)
    holders: dict[int, list[Any]] = defaultdict(list)
    for container in [model, *(entry.layer for entry in entries)]:
        for child in direct(container):
            holders[id(child)].append(container)
    found = [(entry.layer, entry.name, holders[id(entry.layer)]) for entry in entries if len(entry.sites) > 1]
    return [each for each in found if isinstance(each[0], keras.Layer) and owned_variables(each[0])]


def _is_graph(container: Any) -> bool:
    return isinstance(container, keras_private.Functional | keras.Sequential)


def _lists(graph: Any) -> bool:
    """Tell whether a graph's configuration lists its layers; that of a class has what its constructor takes."""
    return isinstance(graph, keras.Sequential) or keras_private.rebuilds_from_tensors(graph)


def _is_inside(layer: Any, container: Any) -> bool:
    return any(entry.layer is layer for entry in walk(container))


Pair = tuple[Any, Any]  # (layer, its copy)
_UNSAID = frozenset(["name", "build_config", "compile_config", "shared_object_id", "registered_name", "module"])


def carry_attributes(pairs: Sequence[Pair], *, renamed: Mapping[str, str]) -> None:
    """Give what a class of the user's keeps on itself, numbers, texts and functions, to the copies.

    Args:
        pairs: (layer, its copy).
        renamed: `{old own name: new}`; an attribute that follows the names stays as the copy has it.
    """
    for old, new in pairs:
        for key, value in _attributes(old).items():
            now = vars(new).get(key)
            if same(value, now) or same(_translated(value, renamed), now) or not is_value(now):
                continue
            if shared_by_code(value):  # the copy would use layers of the original
                continue
            try:
                setattr(new, key, plain(value))
            except Exception:  # a property, or whatever a class of the user's refuses: the outputs decide
                continue


def differing(pairs: Sequence[Pair], places: Sequence[str], parents: Sequence[int], *, what: str) -> list[str]:
    """Return how copies differ from their originals in configuration, arguments and ties, with the line to add.

    Args:
        pairs: (layer, its copy), of the model itself and then of its walk.
        places: what each layer is called in messages.
        parents: for each pair but the first, the place of its container in the walk; -1 is the model itself.
        what: when the copy is so, as "after loading".
    """
    problems, makers = [], {}
    for index, (old, new) in enumerate(pairs):
        for key, was, now in [*_configured(old, new), *_arguments(old, new)]:
            problems.append(f"{places[index]}: {key} is {was!r:.80}, {now!r:.80} {what}")
            maker = _maker(pairs, parents, index)
            makers[type(maker)] = maker
    problems += [advice_to_configure(maker) for maker in makers.values() if is_custom(type(maker))]
    return problems + untied(pairs, places, what=what)


def untied(pairs: Sequence[Pair], places: Sequence[str], *, what: str) -> list[str]:
    """Return which variables several layers hold as one and copies do not, or the other way, or with the original."""
    problems: dict[str, None] = {}
    first: dict[int, tuple[int, str]] = {}
    back: dict[int, tuple[int, str]] = {}
    for (old, new), place in zip(pairs, places, strict=True):
        if not isinstance(old, keras.Layer):
            continue
        for before, after in zip(held(old), held(new), strict=True):
            where = f"{place}/{before.name}"
            if before is after and old is not new:
                problems[f"{where}: would be shared with the original"] = None
            one, came = first.setdefault(id(before), (id(after), where))
            other, went = back.setdefault(id(after), (id(before), where))
            if one != id(after):
                problems[f"{where}: is the variable {came}, another one {what}"] = None
            if other != id(before):
                problems[f"{where}: is not the variable {went}, the same one {what}"] = None
    return list(problems)


def computes_otherwise(original: Any, copy: Any, pairs: Sequence[Pair], *, what: str) -> list[str]:
    """Return how the outputs differ where code of the user's decides them; what Keras configures is compared so."""
    custom = [old for old, _ in pairs if is_custom(type(old)) and isinstance(old, keras.Layer)]
    if not custom or not isinstance(original, keras.Model) or not all(getattr(old, "built", True) for old, _ in pairs):
        return []  # what is not built would be, by being called
    before = [(layer, _copied(_attributes(layer))) for pair in pairs for layer in pair]
    problems = unlike(original, copy, what=what)
    for layer, kept in before:  # a class may count its calls, and nobody asked for these
        for key, value in kept.items():
            if not same(value, vars(layer).get(key)):
                setattr(layer, key, value)
    if not problems:
        return []
    lost = [
        f"{old.name}: keeps {key} = {value!r:.80}, {vars(new).get(key)!r:.80} {what}"
        for old, new in pairs
        for key, value in _attributes(old).items()
        if not same(value, vars(new).get(key))
    ]
    changed = [old for old, new in pairs if is_custom(type(old)) and not _same_attributes(old, new)]
    kinds = {type(each): each for each in changed or custom}
    return [*problems, *lost, *(advice_to_configure(old) for old in kinds.values())]


def _copied(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: plain(value) for key, value in attributes.items()}


def advice_to_configure(layer: Any) -> str:
    """Return the line that lets the configuration of a class have all that its constructor takes."""
    kind = type(layer)
    named = ", ".join(f"{key!r}: self.{key}" for key in parameters(kind)) or "..."
    return (
        f"add to {kind.__name__}: def get_config(self): return {{**super().get_config(), {named}}}, and keep each of "
        "these as it was given"
    )


def _configured(old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    """Return (key, was, now) of what differs in two configurations; a container's is its layers'."""
    if isinstance(old, keras.Model | keras.layers.InputLayer) or not isinstance(old, keras.Layer):
        return []
    try:
        before, after = (type(each).get_config(each) for each in (old, new))
    except Exception:  # a class without a configuration: its arguments, attributes and outputs are compared
        return []
    if isinstance(old, keras.layers.Lambda):
        before, after = {**before, "function": old.function}, {**after, "function": new.function}
    if is_custom(type(old)):
        before = {**keras_private.recorded_arguments(old), **before, **recovered(old)}
        after = {**keras_private.recorded_arguments(new), **after}
    keys = [*before, *(key for key in after if key not in before)]
    pairs = [(key, _bare(before.get(key)), _bare(after.get(key))) for key in keys if key not in _UNSAID]
    return [(key, was, now) for key, was, now in pairs if not _alike(was, now)]


def _arguments(old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    """Return (argument, was, now) of what a class keeps under the names of its constructor's arguments."""
    if not isinstance(old, keras.Layer) or not is_custom(type(old)):
        return []
    kept = ((key, attribute(old, key), attribute(new, key)) for key in parameters(type(old)))
    return [(key, was, now) for key, was, now in kept if is_value(was) and not same(was, now)]


def _maker(pairs: Sequence[Pair], parents: Sequence[int], index: int) -> Any:
    """Return the layer whose class decides how one is made: itself, or the innermost of the user's around it."""
    while index > 0 and not is_custom(type(pairs[index][0])):
        index = parents[index - 1] + 1
    return pairs[index][0]


def _bare(value: Any) -> Any:
    """Return a configuration without names, and without what layers inside it were built with."""
    if isinstance(value, Mapping):
        inner = value.get("config")
        if value.get("class_name") == "__lambda__":  # its bytes differ each time
            return "a Python lambda"
        if isinstance(inner, Mapping) and {"name", "trainable"} <= inner.keys():  # a layer, which is compared itself
            return value.get("class_name")
        if "class_name" in value and isinstance(inner, Mapping):
            policy = "Policy" in str(value["class_name"])  # whose name is what it is
            bare = inner if policy else {key: each for key, each in inner.items() if key not in _UNSAID}
            return {"class_name": value["class_name"], "config": _bare(bare)}
        return {key: _bare(each) for key, each in value.items()}
    return [_bare(each) for each in value] if isinstance(value, list | tuple) else value


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if is_value(one) and is_value(other):
        return same(one, other)
    return type(one) is type(other)  # objects of the user's: nobody knows what makes them equal


def _attributes(layer: Any) -> dict[str, Any]:
    """Return what a layer of a class of the user's keeps on itself as plain data or functions."""
    if not isinstance(layer, keras.Layer) or not is_custom(type(layer)):
        return {}
    return {key: value for key, value in vars(layer).items() if not _is_bookkeeping(layer, key) and is_value(value)}


def _is_bookkeeping(layer: Any, key: str) -> bool:
    """Return whether an attribute is Keras' own, ours, or shadows a method."""
    internal = key in keras_private.internal_attributes() or key.startswith("_nameplate")
    return internal or callable(getattr(type(layer), key, None))


def _same_attributes(old: Any, new: Any) -> bool:
    return all(same(value, vars(new).get(key)) for key, value in _attributes(old).items())


def _translated(value: Any, renamed: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return renamed.get(value, value)
    if isinstance(value, Mapping):
        return {key: _translated(each, renamed) for key, each in value.items()}
    return [_translated(each, renamed) for each in value] if isinstance(value, list | tuple) else value
