"""Whether a copy is equivalent to its original, and which shared layers a `.keras` file can hold as one."""

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

Pair = tuple[Any, Any]  # (layer, its copy)
# Keys of a configuration that may differ between a layer and its copy.
_INCIDENTAL = frozenset(["name", "build_config", "compile_config", "shared_object_id", "registered_name", "module"])


def copy_attributes(pairs: Sequence[Pair], *, renamed: Mapping[str, str]) -> None:
    """Copy the numbers, strings and functions that layers of the user's classes keep as attributes.

    Args:
        pairs: (layer, its copy).
        renamed: `{old own name: new}`; an attribute that contains a name is left as the copy has it.
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
            except Exception:  # a property, or a class that refuses: the outputs decide
                continue


def differing(pairs: Sequence[Pair], places: Sequence[str], parents: Sequence[int], *, what: str) -> list[str]:
    """Return how copies differ from their originals in configuration, arguments and sharing, with the line to add.

    Args:
        pairs: (layer, its copy) of the model itself and then of its walk.
        places: what to call each layer in messages.
        parents: for each pair but the first, the index of its container in the walk; -1 is the model itself.
        what: when the copy was compared, as in "after loading".
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
    """Return the variables that are shared in the originals and not in the copies, or the other way, or with both."""
    problems: dict[str, None] = {}
    copies: dict[int, tuple[int, str]] = {}  # by id of the original's variable: id of the copy's, and where
    originals: dict[int, tuple[int, str]] = {}  # the other way
    for (old, new), place in zip(pairs, places, strict=True):
        if not isinstance(old, keras.Layer):
            continue
        for before, after in zip(held(old), held(new), strict=True):
            where = f"{place}/{before.name}"
            if before is after and old is not new:
                problems[f"{where}: would be shared with the original"] = None
            copied, first_copied = copies.setdefault(id(before), (id(after), where))
            original, first_original = originals.setdefault(id(after), (id(before), where))
            if copied != id(after):
                problems[f"{where}: is the variable {first_copied}, another one {what}"] = None
            if original != id(before):
                problems[f"{where}: is not the variable {first_original}, the same one {what}"] = None
    return list(problems)


def computes_otherwise(original: Any, copy: Any, pairs: Sequence[Pair], *, what: str) -> list[str]:
    """Return how the outputs differ; only compared if a class of the user's computes them."""
    custom = [old for old, _ in pairs if is_custom(type(old)) and isinstance(old, keras.Layer)]
    if not custom or not isinstance(original, keras.Model) or not all(getattr(old, "built", True) for old, _ in pairs):
        return []  # the call would build what is not built
    before = [(layer, plain(_attributes(layer))) for pair in pairs for layer in pair]
    problems = unlike(original, copy, what=what)
    for layer, kept in before:  # a class may count its calls, and these do not count
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
    kinds = {type(layer): layer for layer in changed or custom}
    return [*problems, *lost, *(advice_to_configure(layer) for layer in kinds.values())]


def advice_to_configure(layer: Any) -> str:
    """Return the line to add to a class so that its configuration has every argument of its constructor."""
    kind = type(layer)
    items = ", ".join(f"{key!r}: self.{key}" for key in parameters(kind)) or "..."
    return (
        f"add to {kind.__name__}: def get_config(self): return {{**super().get_config(), {items}}}, and store each of "
        "these as it was passed"
    )


def _configured(old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    """Return (key, before, after) for what differs in two configurations; containers are compared layer by layer."""
    if isinstance(old, keras.Model | keras.layers.InputLayer) or not isinstance(old, keras.Layer):
        return []
    try:
        before, after = (type(layer).get_config(layer) for layer in (old, new))
    except Exception:  # no configuration: arguments, attributes and outputs are compared
        return []
    if isinstance(old, keras.layers.Lambda):
        before, after = {**before, "function": old.function}, {**after, "function": new.function}
    if is_custom(type(old)):
        before = {**keras_private.recorded_arguments(old), **before, **recovered(old)}
        after = {**keras_private.recorded_arguments(new), **after}
    keys = [*before, *(key for key in after if key not in before)]
    pairs = [(key, _bare(before.get(key)), _bare(after.get(key))) for key in keys if key not in _INCIDENTAL]
    return [(key, was, now) for key, was, now in pairs if not _alike(was, now)]


def _arguments(old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    """Return (argument, before, after) for attributes named like a constructor's argument that differ."""
    if not isinstance(old, keras.Layer) or not is_custom(type(old)):
        return []
    kept = ((key, attribute(old, key), attribute(new, key)) for key in parameters(type(old)))
    return [(key, was, now) for key, was, now in kept if is_value(was) and not same(was, now)]


def _maker(pairs: Sequence[Pair], parents: Sequence[int], index: int) -> Any:
    """Return the layer whose class decides how a layer is created: itself, or the innermost custom one around it."""
    while index > 0 and not is_custom(type(pairs[index][0])):
        index = parents[index - 1] + 1
    return pairs[index][0]


def _bare(value: Any) -> Any:
    """Return a configuration without names; layers in it, which are compared themselves, become class names."""
    if isinstance(value, Mapping):
        inner = value.get("config")
        if value.get("class_name") == "__lambda__":  # its bytes differ each time
            return "a Python lambda"
        if isinstance(inner, Mapping) and {"name", "trainable"} <= inner.keys():  # a layer
            return value.get("class_name")
        if "class_name" in value and isinstance(inner, Mapping):
            is_policy = "Policy" in str(value["class_name"])  # a dtype policy, which its name defines
            bare = inner if is_policy else {key: item for key, item in inner.items() if key not in _INCIDENTAL}
            return {"class_name": value["class_name"], "config": _bare(bare)}
        return {key: _bare(item) for key, item in value.items()}
    return [_bare(item) for item in value] if isinstance(value, list | tuple) else value


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if is_value(one) and is_value(other):
        return same(one, other)
    return type(one) is type(other)  # objects of the user's have no equality to rely on


def _attributes(layer: Any) -> dict[str, Any]:
    """Return the attributes of a layer of the user's class that are plain data or functions."""
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
        return {key: _translated(item, renamed) for key, item in value.items()}
    return [_translated(item, renamed) for item in value] if isinstance(value, list | tuple) else value


# ---- layers that several containers hold, and a `.keras` file ---------------------------------------------------


def in_wrappers(model: keras.Model) -> list[int]:
    """Return the ids of shared layers that at most one graph calls, so that a mark in the file keeps them shared."""
    return [id(layer) for layer, _, holders in _shared(model) if sum(map(_is_graph, holders)) < 2]


def between_graphs(model: keras.Model) -> list[str]:
    """Return the layers with weights that several graphs call, and the graphs; a file lists such a layer once a graph.

    A layer that the class of the outer graph calls in its constructor is not reported: the constructor shares it again.
    """
    problems = []
    for _, name, holders in _shared(model):
        graphs = [holder for holder in holders if _is_graph(holder)]
        listing = [graph for graph in graphs if _lists(graph)]
        coded = [graph for graph in graphs if not _lists(graph) and any(_is_inside(graph, outer) for outer in listing)]
        if listing and len(listing) + len(coded) > 1:
            callers = " and ".join(repr(str(graph.name)) for graph in [*listing, *coded])
            problems.append(f"{name}: called in {callers}")
    return problems


def _shared(model: keras.Model) -> list[tuple[Any, str, list[Any]]]:
    """Return (layer, its name, the containers that hold it directly) for each layer with weights that is shared."""
    entries = walk(model)
    holders: dict[int, list[Any]] = defaultdict(list)
    for container in [model, *(entry.layer for entry in entries)]:
        for child in direct(container):
            holders[id(child)].append(container)
    return [
        (entry.layer, entry.name, holders[id(entry.layer)])
        for entry in entries
        if len(entry.sites) > 1 and isinstance(entry.layer, keras.Layer) and owned_variables(entry.layer)
    ]


def _is_graph(container: Any) -> bool:
    return isinstance(container, keras_private.Functional | keras.Sequential)


def _lists(graph: Any) -> bool:
    """Return whether a graph's configuration lists its layers, rather than the arguments of a constructor."""
    return isinstance(graph, keras.Sequential) or keras_private.rebuilds_from_tensors(graph)


def _is_inside(layer: Any, container: Any) -> bool:
    return any(entry.layer is layer for entry in walk(container))
