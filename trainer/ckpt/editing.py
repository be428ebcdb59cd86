"""`rename`, `extract`, `merge` and `convert`: a new file or a new run out of what is there, which stays as it is."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from models import mapping, merge, weights
from models.weights import Weights
from trainer.ckpt import printing, targets
from trainer.first_weights.sources import Source, open_source

# How a training state calls what goes with a variable: seeds/<its name>, and apart/<its name>@replica1 for what
# each replica has of its own.
_OF_VARIABLES = ("seeds/", "apart/")


def rename(arguments: argparse.Namespace) -> int:
    """Write a copy of a checkpoint in which names follow the rules: weights, optimizer slots and seeds together."""
    rules = mapping.parse(arguments.rules)
    with open_source(arguments.source) as source:
        targets.refuse_existing(arguments.target, source)
        owners = {
            name: name.partition("/")[2].partition("@")[0] for name in source.state if name.startswith(_OF_VARIABLES)
        }
        known = [*source.weights, *source.optimizer, *owners.values()]
        done = mapping.apply(list(dict.fromkeys(known)), rules)
        kept = {name: name for name in source.state if name not in owners}
        moved = {name: _of(name, owner, done.names[owner]) for name, owner in owners.items() if owner in done.names}
        classes = {done.names[name]: kind for name, kind in targets.classes_of(source).items() if name in done.names}
        written = targets.write(
            arguments.target,
            source,
            weights=_under(source.weights, done.names),
            optimizer=_under(source.optimizer, done.names),
            state={new: source.state[old] for old, new in (kept | moved).items()},
            edit={"command": "rename", "rules": [rule.text for rule in rules]},
            classes=classes,
        )
    changed = {old: done.names.get(old) for old in done.rules}
    return _report(arguments, written, {"renamed": changed}, f"{len(changed)} names changed")


def _of(name: str, old: str, new: str) -> str:
    """Return the name of what goes with a variable when that is renamed."""
    group, _, rest = name.partition("/")
    return f"{group}/{new}{rest.removeprefix(old)}"


def extract(arguments: argparse.Namespace) -> int:
    """Write some layers, with their slots, to a file or a run of their own."""
    with open_source(arguments.source) as source:
        targets.refuse_existing(arguments.target, source)
        chosen = weights.select(source.weights, arguments.patterns)
        slots, _ = weights.partition(source.optimizer, lambda name: name.partition("@")[0] in chosen)
        written = targets.write(
            arguments.target,
            source,
            weights=chosen,
            optimizer=slots,
            state={},
            edit={"command": "extract", "patterns": arguments.patterns},
        )
    return _report(arguments, written, {"names": list(chosen)}, f"{len(chosen)} variables")


def convert(arguments: argparse.Namespace) -> int:
    """Write the weights of a checkpoint or of any file in another format, or as a run."""
    with open_source(arguments.source) as source:
        targets.refuse_existing(arguments.target, source, foreign=True)
        if targets.is_foreign(arguments.target):
            written = targets.write_foreign(arguments.target, source, modules=_modules(arguments.rules))
        else:
            _refuse_rules(arguments)
            written = targets.write(
                arguments.target,
                source,
                weights=source.weights,
                optimizer=source.optimizer,
                state=source.state,
                edit={"command": "convert"},
            )
        count = len(source.weights)
    return _report(arguments, written, {"names": count}, f"{count} variables")


def combine(arguments: argparse.Namespace) -> int:
    """Write one set of weights out of several: their average, a point between, or a base and what others learned."""
    with ExitStack() as stack:
        sources = [stack.enter_context(open_source(text)) for text in arguments.sources]
        base = stack.enter_context(open_source(arguments.base)) if arguments.base else None
        first = base or sources[0]
        targets.refuse_existing(arguments.target, first)
        merged, how = _merged(arguments, sources, base)
        written = targets.write(
            arguments.target,
            first,
            weights=merged,
            optimizer={},
            state={},
            edit={"command": "merge", **how, "sources": [source.label for source in sources]},
        )
    return _report(arguments, written, {"names": len(merged)}, f"{len(merged)} variables of {len(sources)} sources")


def _merged(
    arguments: argparse.Namespace, sources: Sequence[Source], base: Source | None
) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    arrays: list[Weights] = [source.weights for source in sources]
    if base is not None:
        scales = arguments.scales or [1.0] * len(arrays)
        return merge.task_arithmetic(base.weights, arrays, scales), {"base": base.label, "scales": scales}
    if arguments.position is not None:
        if len(arrays) != 2:
            raise merge.MergeError(f"--position lies between two sources; received {len(arrays)}.")
        return merge.interpolate(arrays[0], arrays[1], arguments.position), {"position": arguments.position}
    return merge.average(arrays, arguments.scales), {"shares": arguments.scales or "equal"}


def _modules(rules: Sequence[str]) -> dict[str, str]:
    """Return `{PyTorch module: layer}` of rules as MODULE=LAYER."""
    return {rule.old: rule.new for rule in mapping.parse(rules)}


def _refuse_rules(arguments: argparse.Namespace) -> None:
    if arguments.rules:
        raise mapping.MappingError("MODULE=LAYER is for a .pt target; `ckpt rename` renames")


def _under(arrays: Weights, names: Mapping[str, str]) -> dict[str, np.ndarray]:
    return {names[old]: array for old, array in arrays.items() if old in names}


def _report(arguments: argparse.Namespace, written: Path, about: dict[str, object], text: str) -> int:
    if arguments.json:
        printing.as_json({"written": str(written), **about})
    else:
        printing.line(f"{written}: {text}")
    return 0
