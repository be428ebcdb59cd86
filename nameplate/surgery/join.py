"""Join: several models in one, each a named branch with its weights; the originals are not changed."""

from __future__ import annotations

import itertools
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
from keras import tree

from nameplate.arguments import checked
from nameplate.errors import NameplateError
from nameplate.graph import equivalence, keras_private
from nameplate.graph.clone import clone
from nameplate.graph.functional import same
from nameplate.graph.sample_outputs import differences, outputs_of, packed, run, specs_of
from nameplate.graph.tree import layer, output_names, require_model, walk
from nameplate.io.save import round_trip
from nameplate.naming import names
from nameplate.naming.policy import NameKind


class JoiningError(NameplateError):
    """Models that cannot be joined as they are."""


@checked
def prefixed(model: keras.Model, prefix: str) -> keras.Model:
    """Return an uncompiled copy whose own name and whose top-level names begin with `prefix`, with all weights.

    Layers inside a container have the prefix through its name: `left_backbone/stem`.

    Proved: names, variables and which layers share them, each layer's configuration and constructor arguments;
    also the outputs, if a class of the user's computes them and inputs can be made. Not proved: that the copy can be
    saved.

    Args:
        model: of any kind; it is not changed.
        prefix: as `left_`; a name may begin with it.

    Raises:
        JoiningError: for a prefix that no name can begin with.
    """
    require_model(model)
    fault = names.fault(f"{prefix}x") if isinstance(prefix, str) else "not a string"
    if fault:
        raise JoiningError(f"no name can begin with {prefix!r}: {fault}; e.g. 'left_'")
    renamed = {id(model): f"{prefix}{model.name}"}
    renamed |= {
        id(entry.layer): f"{prefix}{entry.own}"
        for entry in walk(model)
        if entry.parent < 0 and entry.kind is not NameKind.PART
    }
    return clone(model, renamed=renamed)


@checked
def join(
    branches: Mapping[str, keras.Model],
    *,
    shared: bool = False,
    inputs: str = "own",
    name: str = "joined",
    verify: bool = True,
) -> keras.Model:
    """Return one uncompiled model in which each branch is a container with its name, made in the caller's scope.

    Its outputs are a dictionary: `left` for a branch with one output, `left_score` for one with several; its inputs
    likewise, `left_image`.

    Proved: each copy as `rename` proves it; with `verify` also that the whole is saved and loaded again, and that
    each branch has the outputs of its model. Not proved: behaviour in training.

    Args:
        branches: `{name: model}`, any number of models, which are not changed.
        shared: whether a model that is listed under several names becomes one container, under the first name, that is
            called several times; by default every branch is a copy.
        inputs: `own` for each branch, or `same`: one set, with the names of the first branch, for all.
        name: of the new model.
        verify: whether to save and load the result, and to compare each branch's outputs with the original's.

    Raises:
        JoiningError: for names that clash or are not allowed, models that are not built, and inputs that differ under
            `same`.
    """
    _refuse(_name_problems(branches, name) + _input_problems(branches, inputs))
    with keras_private.undisturbed():
        return _joined(branches, shared=shared, inputs=inputs, name=name, verify=verify)


@checked
def branch(joined: keras.Model, name: str, *, rename: str | None = None) -> keras.Model:
    """Return a copy of one branch of a joined model, as a separate model.

    Proved: names, variables and which layers share them, each layer's configuration and constructor arguments;
    also the outputs, if a class of the user's computes them and inputs can be made. Not proved: that the copy can be
    saved.

    Args:
        joined: a model from `join`, or any model with another model in it; it is not changed.
        name: of the branch, qualified.
        rename: the name of the copy; by default the branch's.

    Raises:
        NameplateError: if no layer has the name.
        JoiningError: if the layer is not a model.
    """
    part = layer(joined, name)
    if not isinstance(part, keras.Model):
        branches = [model.name for model in joined.layers if isinstance(model, keras.Model)]
        raise JoiningError(f"{name!r} is a {type(part).__name__}, not a branch; the branches are {', '.join(branches)}")
    return clone(part, renamed={id(part): rename} if rename else {})


def _joined(branches: Mapping[str, keras.Model], *, shared: bool, inputs: str, name: str, verify: bool) -> keras.Model:
    heads = _all_heads(branches, inputs)
    made: dict[int, Any] = {}
    outputs: dict[str, dict[str, Any]] = {}  # by branch: {key in the joined model: tensor}
    for key, model in branches.items():
        if not shared or id(model) not in made:
            made[id(model)] = clone(model, renamed={id(model): key})
        results = made[id(model)](packed(model, heads[key]))
        outputs[key] = dict(zip(_output_keys(key, model, results), tree.flatten(results), strict=True))
    _refuse(_clashes({key: list(tensors) for key, tensors in outputs.items()}, "output"))
    every = {tensor.name: tensor for tensors in heads.values() for tensor in tensors}
    results = {key: tensor for tensors in outputs.values() for key, tensor in tensors.items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="When providing `inputs` as a dict")
        model = keras.Model(next(iter(every.values())) if len(every) == 1 else every, results, name=name)
    if verify:
        _prove(model, branches, heads, {key: list(tensors) for key, tensors in outputs.items()}, shared)
    return model


def _all_heads(branches: Mapping[str, Any], inputs: str) -> dict[str, list[Any]]:
    """Return the inputs of each branch; with `same`, those of the first for all."""
    specs = {key: specs_of(model) for key, model in branches.items()}
    own = {key: _input_names(key, model_specs, branches, inputs) for key, model_specs in specs.items()}
    if inputs == "same":
        own = dict.fromkeys(own, next(iter(own.values())))
    else:
        _refuse(_clashes(own, "input"))
    taken = {key.casefold() for key in branches}
    _refuse(
        f"the input {name!r} would have the name of a branch; rename the branch or the input"
        for name in dict.fromkeys(name for input_names in own.values() for name in input_names)
        if name.casefold() in taken
    )
    made: dict[str, Any] = {}
    for key, input_names in own.items():
        pairs = zip(input_names, specs[key], strict=True)
        made |= {name: _head(spec, name) for name, spec in pairs if name not in made}
    return {key: [made[name] for name in input_names] for key, input_names in own.items()}


def _head(spec: Any, name: str) -> Any:
    return keras.Input(batch_shape=tuple(spec.shape), dtype=spec.dtype, sparse=bool(spec.sparse), name=name)


def _input_names(key: str, specs: Sequence[Any], branches: Collection[str], inputs: str) -> list[str]:
    own_names = ["" if names.is_automatic(spec.name, "InputLayer") else str(spec.name) for spec in specs]
    taken = {branch.casefold() for branch in branches} if inputs == "same" else set()
    return [_prefixed(key if inputs == "own" else "", own) for own in _distinct(own_names, "input", taken)]


def _output_keys(key: str, model: Any, results: Any) -> list[str]:
    """Return the joined model's keys for the outputs of a branch, in flat order: the branch's name, then its key."""
    count = len(tree.flatten(results))
    if count == 1:
        return [key]
    paths = _paths(results) if isinstance(results, Mapping) else output_names(model)
    return [_prefixed(key, own) for own in _distinct([*paths, *[""] * count][:count], "output", set())]


def _paths(results: Any) -> list[str]:
    """Return the keys that lead to each tensor, joined, in flat order, which may differ from a dictionary's own."""
    numbered = tree.pack_sequence_as(results, list(range(len(tree.flatten(results)))))
    paths: dict[int, str] = {}
    waiting: list[tuple[tuple[Any, ...], Any]] = [((), numbered)]
    while waiting:
        path, part = waiting.pop()
        if isinstance(part, int):
            paths[part] = "_".join(map(str, path))
            continue
        items = part.items() if isinstance(part, Mapping) else enumerate(part)
        waiting += [((*path, own), inner) for own, inner in items]
    return [paths[index] for index in range(len(paths))]


def _distinct(given: Sequence[str], word: str, taken: Collection[str]) -> list[str]:
    """Return distinct names: an empty one becomes `word`, and one that occurs twice is numbered."""
    preferred = [own or (word if len(given) == 1 else f"{word}_{index}") for index, own in enumerate(given)]
    count = Counter(own.casefold() for own in preferred)
    used = {*taken, *(own.casefold() for own in given if count[own.casefold()] == 1)}
    distinct = []
    for own, is_named in zip(preferred, map(bool, given), strict=True):
        alone = count[own.casefold()] == 1
        tries = itertools.chain([own] if alone else [], (f"{own}_{number}" for number in itertools.count()))
        name = own if alone and is_named else next(name for name in tries if name.casefold() not in used)
        used.add(name.casefold())
        distinct.append(name)
    return distinct


def _prefixed(key: str, own: str) -> str:
    return "_".join(part for part in (key, own) if part)


def _name_problems(branches: Mapping[str, Any], name: str) -> list[str]:
    problems = [f"the name {own!r}: {fault}" for own in [name, *branches] if (fault := names.fault(own))]
    others = [key for key, model in branches.items() if not isinstance(model, keras.Model)]
    problems += [f"{key!r} is a {type(branches[key]).__name__}, not a keras.Model" for key in others]
    folded: dict[str, str] = {}
    for key in branches:
        if not isinstance(key, str):  # reported above
            continue
        if key.casefold() in folded:
            problems.append(f"{key!r} and {folded[key.casefold()]!r} differ only in case")
        folded[key.casefold()] = key
    if not branches:
        problems.append("there are no branches; give {name: model}")
    return problems


def _input_problems(branches: Mapping[str, Any], inputs: str) -> list[str]:
    if inputs not in ("own", "same"):
        return [f"inputs={inputs!r} is neither 'own' nor 'same'"]
    if not all(isinstance(model, keras.Model) for model in branches.values()):
        return []
    unbuilt = [key for key, model in branches.items() if not specs_of(model)]
    problems = [f"{key!r} is not built; build it first, or begin it with a keras.Input" for key in unbuilt]
    if inputs == "own" or problems or not branches:
        return problems
    (first, model), *others = branches.items()
    wanted = specs_of(model)
    for key, other in others:
        has = specs_of(other)
        if len(has) != len(wanted) or not all(same(one, two) for one, two in zip(has, wanted, strict=True)):
            problems.append(f"{key!r} takes {_shapes_text(has)}, {first!r} {_shapes_text(wanted)}")
    return problems


def _shapes_text(specs: Sequence[Any]) -> str:
    return " and ".join(str(tuple(spec.shape)) for spec in specs)


def _clashes(own_names: Mapping[str, Sequence[str]], what: str) -> list[str]:
    """Return a line for each key that two branches would have: `a` with `b_c`, and `a_b` with `c`."""
    owners: dict[str, list[str]] = {}
    for key, names_of_branch in own_names.items():
        for name in names_of_branch:
            owners.setdefault(name.casefold(), []).append(key)
    return [
        f"{' and '.join(map(repr, keys))} would both have the {what} {name!r}; rename a branch"
        for name, keys in owners.items()
        if len(keys) > 1
    ]


def _refuse(problems: Iterable[str]) -> None:
    lines = [f"  {problem}" for problem in problems]
    if lines:
        raise JoiningError("\n".join(["these models cannot be joined:", *lines]))


def _in_order(model: Any, branches: Mapping[str, Any], *, shared: bool) -> list[str]:
    """Return the branches in the order in which the joined model runs them, which may differ from that in `join`."""
    calls: dict[str, list[str]] = {}  # {name of a container: its branches}
    first: dict[int, str] = {}
    for key, original in branches.items():
        calls.setdefault(first.setdefault(id(original), key) if shared else key, []).append(key)
    return [calls[operation.name][call] for _, operation, call in keras_private.nodes(model) if operation.name in calls]


def _originals(
    model: Any,
    branches: Mapping[str, Any],
    heads: Mapping[str, Sequence[Any]],
    given: Mapping[str, Any],
    *,
    shared: bool,
) -> Iterator[tuple[str, list[Any]]]:
    """Yield each branch with the flat outputs of its original.

    A model that several branches share is called once for each in one scope, so that its seeds advance from call to
    call. Every copy starts from the seeds of the original.
    """
    scopes: dict[int, keras.StatelessScope] = {}
    for key in _in_order(model, branches, shared=shared):
        original = branches[key]
        scope = keras.StatelessScope(initialize_variables=False)
        if shared:
            scope = scopes.setdefault(id(original), scope)
        yield key, outputs_of(original, [given[tensor.name] for tensor in heads[key]], scope=scope)


def _prove(
    model: Any,
    branches: Mapping[str, Any],
    heads: Mapping[str, Sequence[Any]],
    outputs: Mapping[str, Sequence[str]],
    shared: bool,
) -> None:
    """Save, load, and compare each branch with its original; `outputs` has the keys of each branch in flat order."""
    loaded = model if equivalence.between_graphs(model) else round_trip(model)
    values, results = run(model)
    given = dict(zip([tensor.name for tensor in model.inputs], values, strict=True))
    every = tree.flatten({key: key for keys in outputs.values() for key in keys})  # in the order of the results
    by_key = dict(zip(every, results, strict=True))
    problems = differences(results, outputs_of(loaded, values), names=every, what="after loading")
    for key, before in _originals(model, branches, heads, given, shared=shared):
        after = [by_key[output] for output in outputs[key]]
        problems += differences(before, after, names=outputs[key], what="in the joined model")
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise JoiningError(f"the joined {model.name!r} does not compute what its branches did:\n{lines}")
