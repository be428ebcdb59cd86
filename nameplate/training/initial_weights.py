"""A part of another model as first weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

import nameplate
from nameplate import checkpoint as store
from nameplate.checkpoint import tensor_names
from nameplate.errors import NameplateError
from nameplate.formats.pytorch_weights import Converted, to_keras, torch_rules
from nameplate.graph import model_weights
from nameplate.graph.tree import seeds
from nameplate.io.channel_order import rows_by_layer
from nameplate.io.load_weights import classes_of, layout_of, with_origins
from nameplate.io.transfer import write_plan
from nameplate.naming.names import did_you_mean
from nameplate.naming.rules import apply_rules, parse_rules
from nameplate.training import run_directory
from nameplate.training.config import CheckpointInitConfig, TransferInitConfig
from nameplate.training.weight_sources import WeightSource, open_source
from nameplate.weights import plan as matching
from nameplate.weights.class_mapping import Classes
from nameplate.weights.named import matches, require_matches
from nameplate.weights.plan import Form, Line, Plan

COLUMNS = ("variable", "from", "verdict", "why")


def transfer(
    model: keras.Model,
    init: TransferInitConfig,
    opened: AbstractContextManager[WeightSource],
    *,
    show: Callable[[str, tuple[str, ...], Sequence[tuple[str, ...]]], None],
) -> dict[str, dict[str, Any]]:
    """Write what `init` takes into the model, proved equal bit for bit, and return where each value came from.

    Raises:
        NameplateError: for names that are left over, shapes that differ, and rules and patterns that are for nothing.
    """
    classes = Classes(tuple(init.source_classes), tuple(init.target_classes)) if init.source_classes else None
    with opened as source:
        plan = nameplate.plan(
            source.weights,
            model,
            init.rename,
            take=init.only,
            adapt=init.adapt,
            classes=classes,
            label=source.label,
        )
        rows = [(line.target or "", line.source or "", line.verdict, line.detail) for line in plan.lines]
        show(f"first weights from {source.label}", COLUMNS, rows)
        write_plan(plan, model)
        step = {"step": source.step} if source.checkpoint else {}
    return {target: origin | step for target, origin in plan.origins().items()}


Show = Callable[[str, tuple[str, ...], Sequence[tuple[str, ...]]], None]  # title, columns, rows
Origins = dict[str, dict[str, Any]]  # variable -> file, name in it, rule that renamed it


class InitialWeightsError(NameplateError):
    """A source of first weights that does not fit, and nobody allowed for it."""


@dataclass(frozen=True)
class Account:
    """What becomes of every name of both sides; `refused` are the lines that nothing allows."""

    lines: tuple[Line, ...]
    refused: tuple[Line, ...]
    taken: Mapping[str, str]  # variable here -> name in the source


def take_weights(model: keras.Model, init: CheckpointInitConfig, *, show: Show) -> Origins:
    """Write the weights that `init` names into the model and return where each came from.

    Raises:
        InitialWeightsError: with every name that is left over on either side, and every shape and dtype that differs,
            unless `init` allows it.
        NameplateError: no such source, or a rule or leniency that is for nothing.
    """
    if isinstance(init, TransferInitConfig):
        return transfer(model, init, _opened(init.path, show), show=show)
    with _opened(init.path, show) as opened:
        source, init, converted = _in_keras_layout(opened, model, init)
        account = _with_names_of_the_file(plan(source.forms, _forms(model), init), converted)
        rows = [(line.target or "", line.source or "", line.verdict, line.detail) for line in account.lines]
        show(f"first weights from {source.label}", COLUMNS, rows)
        _refuse(account, source, model, init)
        values = model_weights.read(model)
        for target, name in account.taken.items():
            array = source.weights[target if converted else name]
            values[target] = np.asarray(array).astype(values[target].dtype, copy=False)
        model_weights.write(model, values)
        rules = {line.target: line.detail for line in account.lines if line.verdict == "renamed"}
        file = {"file": source.label, "step": source.step} if source.checkpoint else {"file": source.label}
        return {
            target: {**file, "name": name} | ({"rule": rules[target]} if target in rules else {})
            for target, name in account.taken.items()
        }


def take_slots(
    weights: Mapping[str, keras.Variable],
    slots: Mapping[str, keras.Variable],
    iteration: keras.Variable,
    init: CheckpointInitConfig,
    origins: Origins,
) -> None:
    """Write the optimizer's slots of the variables that were taken, and its count of steps, which belongs to them.

    Where the source has averages of its weights, training goes on with what they are the averages of.

    Raises:
        InitialWeightsError: with every slot that is left over on either side or of another shape.
    """
    with _opened(init.path) as source:
        raw, optimizer = tensor_names.as_trained(source.weights, source.optimizer)
        names = [*source.weights, *optimizer]
        mapped = apply_rules(names, parse_rules(init.rename)).names
        given = {mapped[name]: name for name in optimizer if mapped.get(name, "").partition("@")[0] in origins}
        wanted = {name: variable for name, variable in slots.items() if name.partition("@")[0] in origins}
        arrays = {name: optimizer[old] for name, old in given.items()}
        problems = [f"missing     {name}{did_you_mean(name, given)}" for name in wanted if name not in given]
        problems += [f"unexpected  {name}{did_you_mean(name, wanted)}" for name in given if name not in wanted]
        problems += [
            f"shape       {name}: {arrays[name].shape} in the source, {tuple(variable.shape)} here"
            for name, variable in wanted.items()
            if name in arrays and arrays[name].shape != tuple(variable.shape)
        ]
        if problems or "optimizer/iteration" not in source.state:
            raise InitialWeightsError(
                "\n".join(
                    [
                        f"the optimizer in {source.label} is not this one; nothing was written:",
                        *(f"  {each}" for each in problems or ["it has no optimizer's state"]),
                        "Choose the optimizer that it was trained with, or leave out init.optimizer=true.",
                    ]
                )
            )
        for name, variable in wanted.items():
            variable.assign(arrays[name])
        averages = {name: old.partition("@")[0] for name, old in given.items() if name.endswith("@average")}
        for name, old in averages.items():
            weights[name.removesuffix("@average")].assign(raw[old])
        iteration.assign(source.state["optimizer/iteration"])


def plan(source: Mapping[str, Form], target: Mapping[str, Form], init: CheckpointInitConfig) -> Account:
    """Return what `init` makes of two sets of names; reads no array.

    Raises:
        NameplateError: rules, patterns and leniencies that are for nothing.
    """
    rules = parse_rules(init.rename)
    made = matching.match(source, target, rules=rules)
    lines = list(made.lines)
    if init.only:
        require_matches(target, init.only)
        new = apply_rules(list(source), rules).names
        lines = [each for each in lines if _any(each.target or new.get(each.source or "", ""), init.only)]
    allowed = {
        "missing": init.allow_missing,
        "unexpected": init.allow_unexpected,
        "shape": init.allow_shape,
        "dtype": init.allow_dtype,
    }
    _refuse_idle(lines, allowed)
    judged = [_judged(line, allowed) for line in lines]
    taken = {
        line.target: line.source
        for line in judged
        if line.target and line.source and line.verdict in ("taken", "renamed", "cast")
    }
    refused = tuple(line for line in judged if line.verdict in allowed)
    return Account(tuple(judged), refused, taken)


def _in_keras_layout(
    source: WeightSource, model: keras.Model, init: CheckpointInitConfig
) -> tuple[WeightSource, CheckpointInitConfig, Converted | None]:
    """Return a source of PyTorch's as one in Keras' layouts, under the names that `init.rename` gives; others as is."""
    if layout_of(source.weights) != "torch":
        return source, init, None
    converted = to_keras(
        source.weights,
        source.forms,
        classes=classes_of(model),
        targets=_forms(model),
        rules=torch_rules(parse_rules(init.rename)),
        rows=rows_by_layer(model),
    )
    return replace(source, weights=converted.weights), replace(init, rename=[]), converted


def _with_names_of_the_file(account: Account, converted: Converted | None) -> Account:
    """Return the account with PyTorch's names for where arrays come from."""
    if converted is None:
        return account
    lines = with_origins(Plan(account.lines), converted).lines
    refused = with_origins(Plan(account.refused), replace(converted, dropped={})).lines
    taken = {target: converted.origins.get(name, name) for target, name in account.taken.items()}
    return Account(lines, refused, taken)


def _judged(line: Line, allowed: Mapping[str, list[str]]) -> Line:
    """Return a line whose verdict says what happens where a leniency covers it."""
    name = line.target or line.source or ""
    if line.verdict not in allowed or not _any(name, allowed[line.verdict]):
        return line
    verdict = {"missing": "kept", "unexpected": "left", "shape": "kept", "dtype": "cast"}[line.verdict]
    return replace(line, verdict=verdict, detail=f"init.allow_{line.verdict}: {line.detail}")


def _refuse_idle(lines: list[Line], allowed: Mapping[str, list[str]]) -> None:
    problems = []
    for verdict, patterns in allowed.items():
        names = [line.target or line.source or "" for line in lines if line.verdict == verdict]
        for pattern in patterns:
            if not _any_of(names, pattern):
                meant = did_you_mean(pattern, [*names, *(name.rpartition("/")[0] for name in names)])
                problems.append(f"  init.allow_{verdict}: {pattern!r} is for nothing, {_listed(names)}.{meant}")
    if problems:
        raise InitialWeightsError("\n".join(["these leniencies cannot be meant; nothing was loaded:", *problems]))


def _refuse(account: Account, source: WeightSource, model: keras.Model, init: CheckpointInitConfig) -> None:
    if account.taken and not account.refused:
        return
    wanted = sum(line.target is not None for line in account.lines)
    head = (
        f"the weights in {source.label} are not those of {model.name!r}: {len(account.taken)} of {wanted} would be "
        f"taken, and {len(account.refused)} names are left over; nothing was loaded:"
    )
    lines = [f"  {line.verdict:<11} {line.target or line.source}   {line.detail}" for line in account.refused]
    bridges = [] if init.rename else matching.bridges(source.forms, _forms(model))
    ways = [
        f'These rules would bridge it: "init.rename=[{",".join(map(repr, bridges))}]".' if bridges else "",
        "Otherwise rename with \"init.rename=['OLD=NEW']\", load a part with init.only=[NAME], or allow what is meant:",
        " ".join(_leniencies(account)) or "(nothing was in common)",
    ]
    raise InitialWeightsError("\n".join([head, *lines, *(way for way in ways if way)]))


def _leniencies(account: Account) -> Iterator[str]:
    """Yield the settings that would allow all that is left over, a layer each."""
    verdicts = dict.fromkeys(line.verdict for line in account.refused)
    for verdict in verdicts:
        names = [line.target or line.source or "" for line in account.refused if line.verdict == verdict]
        layers = dict.fromkeys(name.rpartition("/")[0] or name for name in names)
        yield f"init.allow_{verdict}=[{','.join(layers)}]"


def _forms(model: keras.Model) -> dict[str, Form]:
    """Return shape and dtype of every weight; the states of seed generators are none."""
    drawn = {f"{name}/state" for name in seeds(model)}
    return {
        name: Form(tuple(variable.shape), str(variable.dtype))
        for name, variable in nameplate.variables(model).items()
        if name not in drawn
    }


@contextmanager
def _opened(text: str, show: Show = lambda *_: None) -> Iterator[WeightSource]:
    """Open a source; of a run the best checkpoint that is good, or else the newest. What is passed over is shown."""
    damaged: list[tuple[str, ...]] = []
    best = _best(Path(text), damaged)
    if damaged:
        show(f"damaged in {text}, and passed over", ("checkpoint", "reason"), damaged)
    with open_source(best or text) as source:
        yield source


def _best(path: Path, damaged: list[tuple[str, ...]]) -> str | None:
    for directory in (path / run_directory.CHECKPOINTS, path):
        if (directory / "best").is_file() or store.checkpoints(directory):
            found = store.best(directory, lambda each, error: damaged.append((each.name, str(error))))
            return None if found is None else str(found)
    return None


def _any(name: str, patterns: list[str]) -> bool:
    return any(matches(name, pattern) for pattern in patterns)


def _any_of(names: list[str], pattern: str) -> bool:
    return any(matches(name, pattern) for name in names)


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"there are {shown}" if names else "there is no such difference"
