"""Several models in one: names that cannot clash, whole weights, named branches; the originals stay as they are."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import tree

from models import keras_private, names
from models.cloning import clone
from models.errors import NameplateError
from models.policy import Kind
from models.saving import round_trip
from models.surgery.graph import same
from models.surgery.verifying import differences, outputs_of, packed, run
from models.tree import layer, output_names, walk


class JoiningError(NameplateError):
    """Models that cannot become one as they are."""


def prefixed(model: keras.Model, prefix: str) -> keras.Model:
    """Return an uncompiled copy whose own name and whose names at the top begin with `prefix`; weights are whole.

    What lies in a container has the prefix through the container's name: `left_backbone/stem`.

    Raises:
        JoiningError: for a prefix with which no name can begin.
    """
    fault = names.fault(f"{prefix}x")
    if fault:
        raise JoiningError(f"no name can begin with {prefix!r}: {fault}; e.g. 'left_'")
    renamed = {id(model): f"{prefix}{model.name}"}
    renamed |= {
        id(entry.layer): f"{prefix}{entry.own}"
        for entry in walk(model)
        if entry.parent < 0 and entry.kind is not Kind.PART
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
    _refuse(_name_problems(branches, name) + _input_problems(branches, inputs))
    with keras_private.undisturbed():
        return _joined(branches, shared=shared, inputs=inputs, name=name, verify=verify)


def branch(joined: keras.Model, name: str, *, rename: str | None = None) -> keras.Model:
    """Return a copy of one branch of a joined model, as a model of its own, under the name `rename` if given."""
    found = layer(joined, name)
    if not isinstance(found, keras.Model):
        kinds = [each.name for each in joined.layers if isinstance(each, keras.Model)]
        raise JoiningError(f"{name!r} is a {type(found).__name__}, no branch; the branches are {', '.join(kinds)}")
    return clone(found, renamed={id(found): rename} if rename else {})


def _joined(branches: Mapping[str, keras.Model], *, shared: bool, inputs: str, name: str, verify: bool) -> keras.Model:
    made: dict[int, Any] = {}
    heads: dict[str, list[Any]] = {}
    outputs: dict[str, Any] = {}
    common: list[Any] = []
    for key, model in branches.items():
        if not shared or id(model) not in made:
            made[id(model)] = clone(model, renamed={id(model): key})
        heads[key] = common or _heads(key if inputs == "own" else "", model)
        common = heads[key] if inputs == "same" else []
        results = tree.flatten(made[id(model)](packed(model, heads[key])))
        keys = _keys(key, output_names(model), len(results), "output")
        outputs |= dict(zip(keys, results, strict=True))
    every = {tensor.name: tensor for tensors in heads.values() for tensor in tensors}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="When providing `inputs` as a dict")
        model = keras.Model(next(iter(every.values())) if len(every) == 1 else every, outputs, name=name)
    if verify:
        _prove(model, branches, heads, outputs)
    return model


def specs_of(model: Any) -> list[Any]:
    """Return the specs of a model's inputs, flat; empty for one that has not seen a shape."""
    if getattr(model, "inputs", None):
        return list(model.inputs)
    shape = (model.get_build_config() or {}).get("input_shape") if model.built else None
    return [keras.KerasTensor(tuple(shape))] if isinstance(shape, list | tuple) and shape else []


def _heads(key: str, model: Any) -> list[Any]:
    specs = specs_of(model)
    given = _keys(key, [str(spec.name) for spec in specs], len(specs), "input")
    return [
        keras.Input(batch_shape=tuple(spec.shape), dtype=spec.dtype, sparse=bool(spec.sparse), name=own)
        for spec, own in zip(specs, given, strict=True)
    ]


def _keys(key: str, given: Sequence[str], count: int, what: str) -> list[str]:
    """Return a name for each input or output of a branch: its own behind the branch's; made-up ones are numbered."""
    if what == "output" and count == 1:
        return [key]
    known = [*given, *[""] * count][:count]
    made_up = [not each or names.is_automatic(each, "InputLayer") for each in known]
    plain = [what if count == 1 else f"{what}_{place}" for place in range(count)]
    return [
        "_".join(part for part in (key, own if not vague else other) if part)
        for own, vague, other in zip(known, made_up, plain, strict=True)
    ]


def _name_problems(branches: Mapping[str, Any], name: str) -> list[str]:
    problems = [f"the name {each!r}: {fault}" for each in [name, *branches] if (fault := names.fault(each))]
    folded: dict[str, str] = {}
    for key in branches:
        if key.casefold() in folded:
            problems.append(f"{key!r} and {folded[key.casefold()]!r} are the same name but for case")
        folded[key.casefold()] = key
    if not branches:
        problems.append("there is no branch; give {name: model}")
    return problems


def _input_problems(branches: Mapping[str, Any], inputs: str) -> list[str]:
    if inputs not in ("own", "same"):
        return [f"inputs={inputs!r} is neither 'own' nor 'same'"]
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


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise JoiningError("\n".join(["these models cannot be joined:", *(f"  {each}" for each in problems)]))


def _prove(model: Any, branches: Mapping[str, Any], heads: Mapping[str, Sequence[Any]], outputs: Any) -> None:
    """Save, load, and compare each branch with the model that it was."""
    loaded = round_trip(model)
    values, results = run(model)
    given = dict(zip([tensor.name for tensor in model.inputs], values, strict=True))
    found = dict(zip(tree.flatten(dict.fromkeys(outputs) | {key: key for key in outputs}), results, strict=True))
    problems = differences(results, outputs_of(loaded, values), names=list(found), what="after loading")
    for key, original in branches.items():
        before = outputs_of(original, [given[tensor.name] for tensor in heads[key]])
        keys = _keys(key, output_names(original), len(before), "output")
        problems += differences(before, [found[each] for each in keys], names=keys, what="in the joined model")
    if problems:
        lines = "\n".join(f"  {each}" for each in problems)
        raise JoiningError(f"the joined {model.name!r} does not compute what its branches did:\n{lines}")
