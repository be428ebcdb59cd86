"""Several models in one: names that cannot clash, whole weights, named branches; the originals stay as they are."""

from __future__ import annotations

import itertools
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
from keras import tree

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
    """Models that cannot become one as they are."""


def prefixed(model: keras.Model, prefix: str) -> keras.Model:
    """Return an uncompiled copy whose own name and whose names at the top begin with `prefix`; weights are whole.

    What lies in a container has the prefix through the container's name: `left_backbone/stem`.

    Proved: names, variables and which layers share them, each layer's configuration and constructor arguments;
    where code of the user's computes and inputs can be made, the outputs. Not proved: that the copy can be saved.

    Raises:
        JoiningError: for a prefix with which no name can begin.
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


def join(
    branches: Mapping[str, keras.Model],
    *,
    shared: bool = False,
    inputs: str = "own",
    name: str = "joined",
    verify: bool = True,
) -> keras.Model:
    """Return one uncompiled model in which each branch is a container of its own name, made in the caller's scope.

    Its outputs are a dictionary: `left` where a branch has one output, `left_score` where it has several; its inputs
    likewise, `left_image`.

    Proved: each copy as `rename` proves it; with `verify` also that the whole is saved and loaded again, and that
    each branch gives what its model gives. Not proved: behaviour in training.

    Args:
        branches: `{name: model}`, of any number; trained or not. They are left as they are.
        shared: whether a model that stands under several names is one, called as often, under the first; without this
            every branch is a copy.
        inputs: `own` for each branch, or `same`: one set, with the names of the first branch, goes to all.
        name: of the new model.
        verify: whether it is saved and loaded again, and each branch's outputs are compared with the original's.

    Raises:
        JoiningError: for names that clash or cannot be, models that have not seen a shape, and inputs that are not
            the same.
    """
    if not isinstance(branches, Mapping):
        raise JoiningError(f"branches is {{name: model}}, not a {type(branches).__name__}: each model needs its name")
    _refuse(_name_problems(branches, name) + _input_problems(branches, inputs))
    with keras_private.undisturbed():
        return _joined(branches, shared=shared, inputs=inputs, name=name, verify=verify)


def branch(joined: keras.Model, name: str, *, rename: str | None = None) -> keras.Model:
    """Return a copy of one branch of a joined model, as a model of its own, under the name `rename` if given.

    Proved: names, variables and which layers share them, each layer's configuration and constructor arguments;
    where code of the user's computes and inputs can be made, the outputs. Not proved: that the copy can be saved.
    """
    found = layer(joined, name)
    if not isinstance(found, keras.Model):
        kinds = [each.name for each in joined.layers if isinstance(each, keras.Model)]
        raise JoiningError(f"{name!r} is a {type(found).__name__}, no branch; the branches are {', '.join(kinds)}")
    return clone(found, renamed={id(found): rename} if rename else {})


def _joined(branches: Mapping[str, keras.Model], *, shared: bool, inputs: str, name: str, verify: bool) -> keras.Model:
    heads = _all_heads(branches, inputs)
    made: dict[int, Any] = {}
    outputs: dict[str, dict[str, Any]] = {}  # by branch, the joined model's key: tensor
    for key, model in branches.items():
        if not shared or id(model) not in made:
            made[id(model)] = clone(model, renamed={id(model): key})
        results = made[id(model)](packed(model, heads[key]))
        outputs[key] = dict(zip(_output_keys(key, model, results), tree.flatten(results), strict=True))
    _refuse(_clashes({key: list(found) for key, found in outputs.items()}, "output"))
    every = {tensor.name: tensor for tensors in heads.values() for tensor in tensors}
    answers = {key: tensor for found in outputs.values() for key, tensor in found.items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="When providing `inputs` as a dict")
        model = keras.Model(next(iter(every.values())) if len(every) == 1 else every, answers, name=name)
    if verify:
        _prove(model, branches, heads, {key: list(found) for key, found in outputs.items()}, shared)
    return model


def _all_heads(branches: Mapping[str, Any], inputs: str) -> dict[str, list[Any]]:
    """Return the inputs of each branch; with `same` those of the first are everyone's."""
    specs = {key: specs_of(model) for key, model in branches.items()}
    own = {key: _input_names(key, each, branches, inputs) for key, each in specs.items()}
    if inputs == "same":
        own = dict.fromkeys(own, next(iter(own.values())))
    else:
        _refuse(_clashes(own, "input"))
    taken = {key.casefold() for key in branches}
    _refuse(
        f"the input {name!r} would have the name of a branch; call the branch otherwise, or rename the input first"
        for name in dict.fromkeys(name for found in own.values() for name in found)
        if name.casefold() in taken
    )
    made: dict[str, Any] = {}
    for key, found in own.items():
        made |= {name: _head(spec, name) for name, spec in zip(found, specs[key], strict=True) if name not in made}
    return {key: [made[name] for name in found] for key, found in own.items()}


def _head(spec: Any, name: str) -> Any:
    return keras.Input(batch_shape=tuple(spec.shape), dtype=spec.dtype, sparse=bool(spec.sparse), name=name)


def _input_names(key: str, specs: Sequence[Any], branches: Collection[str], inputs: str) -> list[str]:
    given = ["" if names.is_automatic(spec.name, "InputLayer") else str(spec.name) for spec in specs]
    taken = {each.casefold() for each in branches} if inputs == "same" else set()
    return [_behind(key if inputs == "own" else "", own) for own in _unlike(given, "input", taken)]


def _output_keys(key: str, model: Any, results: Any) -> list[str]:
    """Return the joined model's keys for what a branch gives, in flat order: the branch's name before its own key."""
    count = len(tree.flatten(results))
    if count == 1:
        return [key]
    paths = _paths(results) if isinstance(results, Mapping) else output_names(model)
    return [_behind(key, own) for own in _unlike([*paths, *[""] * count][:count], "output", set())]


def _paths(results: Any) -> list[str]:
    """Return the keys that lead to each tensor, in flat order, which is not a dictionary's own."""
    numbered = tree.pack_sequence_as(results, list(range(len(tree.flatten(results)))))
    found: dict[int, str] = {}
    waiting: list[tuple[tuple[Any, ...], Any]] = [((), numbered)]
    while waiting:
        path, part = waiting.pop()
        if isinstance(part, int):
            found[part] = "_".join(map(str, path))
            continue
        items = part.items() if isinstance(part, Mapping) else enumerate(part)
        waiting += [((*path, own), inner) for own, inner in items]
    return [found[place] for place in range(len(found))]


def _unlike(given: Sequence[str], word: str, taken: Collection[str]) -> list[str]:
    """Return a name for each, no two the same: those without one are `word`, and what occurs twice is numbered."""
    wished = [own or (word if len(given) == 1 else f"{word}_{place}") for place, own in enumerate(given)]
    count = Counter(own.casefold() for own in wished)
    used = {*taken, *(own.casefold() for own in given if count[own.casefold()] == 1)}
    found = []
    for own, is_named in zip(wished, map(bool, given), strict=True):
        alone = count[own.casefold()] == 1
        tries = itertools.chain([own] if alone else [], (f"{own}_{number}" for number in itertools.count()))
        name = own if alone and is_named else next(each for each in tries if each.casefold() not in used)
        used.add(name.casefold())
        found.append(name)
    return found


def _behind(key: str, own: str) -> str:
    return "_".join(part for part in (key, own) if part)


def _name_problems(branches: Mapping[str, Any], name: str) -> list[str]:
    problems = [f"the name {each!r}: {fault}" for each in [name, *branches] if (fault := names.fault(each))]
    strangers = [key for key, model in branches.items() if not isinstance(model, keras.Model)]
    problems += [f"{key!r} is a {type(branches[key]).__name__}, not a keras.Model" for key in strangers]
    folded: dict[str, str] = {}
    for key in branches:
        if not isinstance(key, str):  # as its fault says
            continue
        if key.casefold() in folded:
            problems.append(f"{key!r} and {folded[key.casefold()]!r} are the same name but for case")
        folded[key.casefold()] = key
    if not branches:
        problems.append("there is no branch; give {name: model}")
    return problems


def _input_problems(branches: Mapping[str, Any], inputs: str) -> list[str]:
    if inputs not in ("own", "same"):
        return [f"inputs={inputs!r} is neither 'own' nor 'same'"]
    if not all(isinstance(model, keras.Model) for model in branches.values()):
        return []
    blind = [key for key, model in branches.items() if not specs_of(model)]
    problems = [f"{key!r} has not seen a shape; build it first, or give it an Input" for key in blind]
    if inputs == "own" or problems or not branches:
        return problems
    (first, model), *others = branches.items()
    wanted = specs_of(model)
    for key, other in others:
        has = specs_of(other)
        if len(has) != len(wanted) or not all(same(one, two) for one, two in zip(has, wanted, strict=True)):
            told = " and ".join(str(tuple(each.shape)) for each in has)
            problems.append(f"{key!r} takes {told}, {first!r} {' and '.join(str(tuple(s.shape)) for s in wanted)}")
    return problems


def _clashes(found: Mapping[str, Sequence[str]], what: str) -> list[str]:
    """Return each key that two branches would give, as `a` with `b_c` and `a_b` with `c`."""
    owners: dict[str, list[str]] = {}
    for key, own in found.items():
        for each in own:
            owners.setdefault(each.casefold(), []).append(key)
    return [
        f"{' and '.join(map(repr, keys))} would both have the {what} {name!r}; call a branch otherwise"
        for name, keys in owners.items()
        if len(keys) > 1
    ]


def _refuse(found: Iterable[str]) -> None:
    problems = list(found)
    if problems:
        raise JoiningError("\n".join(["these models cannot be joined:", *(f"  {each}" for each in problems)]))


def _in_order(model: Any, branches: Mapping[str, Any], *, shared: bool) -> list[str]:
    """Return the branches in the order in which the joined model calls them, which is not that of the calls made."""
    calls: dict[str, list[str]] = {}  # name of a container: the branches that it stands for
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
    """Yield each branch, and what the original gives for its inputs, flat.

    A model that is shared by several branches is called once for each, so that its random numbers go on; a copy begins
    where the original stands.
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
    """Save, load, and compare each branch with the model that it was; `outputs` has each one's keys in flat order."""
    loaded = model if equivalence.between_graphs(model) else round_trip(model)
    values, results = run(model)
    given = dict(zip([tensor.name for tensor in model.inputs], values, strict=True))
    every = tree.flatten({key: key for keys in outputs.values() for key in keys})  # in the order of the results
    found = dict(zip(every, results, strict=True))
    problems = differences(results, outputs_of(loaded, values), names=every, what="after loading")
    for key, before in _originals(model, branches, heads, given, shared=shared):
        after = [found[each] for each in outputs[key]]
        problems += differences(before, after, names=outputs[key], what="in the joined model")
    if problems:
        lines = "\n".join(f"  {each}" for each in problems)
        raise JoiningError(f"the joined {model.name!r} does not compute what its branches did:\n{lines}")
