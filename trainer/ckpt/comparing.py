"""`diff` and `plan`: how two checkpoints differ, and how one would load into the other."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from models import mapping, matching, weights
from models.matching import Plan
from models.weights import Difference, Weights
from trainer.ckpt import printing
from trainer.first_weights.sources import Source, open_source

FITS, LEFT_OVER = 0, 1


def diff(arguments: argparse.Namespace) -> int:
    """Compare two checkpoints, or files, by name: names, shapes, dtypes, and how far values moved."""
    with open_source(arguments.a) as a, open_source(arguments.b) as b:
        found = {group: weights.difference(one, other) for group, one, other in _pairs(a, b, arguments.only)}
        labels = (a.label, b.label)
    if arguments.json:
        printing.as_json({"a": labels[0], "b": labels[1]} | {group: _document(each) for group, each in found.items()})
        return 0
    printing.line(f"a: {labels[0]}\nb: {labels[1]}")
    for group, each in found.items():
        printing.line(f"{group}: {_summary(each)}")
        if rows := list(_rows(each)):
            printing.table(group, ["name", "difference", ">largest", ">relative"], rows)
    return 0


def plan(arguments: argparse.Namespace) -> int:
    """Say for every name of both sides what loading SOURCE into TARGET would do with it; exit 1 if anything is left
    over.
    """
    rules = mapping.parse(arguments.rules)
    with open_source(arguments.source) as source, open_source(arguments.target) as target:
        made = matching.match(source.forms, target.forms, rules=rules)
        bridges = matching.bridges(source.forms, target.forms) if not rules and not made.fits else []
    if arguments.json:
        lines = [vars(line) for line in made.lines]
        printing.as_json({"fits": made.fits, "counts": made.counts(), "bridges": bridges, "lines": lines})
    else:
        _print_plan(made, bridges)
    return FITS if made.fits else LEFT_OVER


def _pairs(a: Source, b: Source, only: list[str]) -> Iterator[tuple[str, Weights, Weights]]:
    """Yield the groups that both have; a plain file has weights alone."""
    for group in a.groups if a.checkpoint and b.checkpoint and not only else ["weights"]:
        one, other = a.groups[group], b.groups[group]
        if only:
            weights.require_matches(one.keys() | other.keys(), only)
            one, other = (_picked(each, only) for each in (one, other))
        yield group, one, other


def _picked(arrays: Weights, only: list[str]) -> Weights:
    return weights.partition(arrays, lambda name: any(weights.matches(name, pattern) for pattern in only))[0]


def _summary(found: Difference) -> str:
    shaped = found.shape.keys() | (found.dtype.keys() - found.moved.keys())
    counts = {
        "the same": len(found.same),
        "moved": len(found.moved),
        "of another shape": len(shaped),
        "only in a": len(found.only_a),
        "only in b": len(found.only_b),
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "empty"


def _rows(found: Difference) -> Iterator[list[object]]:
    for name in found.only_a:
        yield [name, "only in a", None, None]
    for name in found.only_b:
        yield [name, "only in b", None, None]
    for name, (one, other) in found.shape.items():
        yield [name, f"{_shape(one)} in a, {_shape(other)} in b", None, None]
    for name, move in found.moved.items():
        dtypes = found.dtype.get(name)
        what = f"moved; {dtypes[0]} in a, {dtypes[1]} in b" if dtypes else "moved"
        yield [name, what, move.largest, move.relative]


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "scalar"


def _document(found: Difference) -> dict[str, Any]:
    return {
        "only_a": list(found.only_a),
        "only_b": list(found.only_b),
        "shape": {name: {"a": list(one), "b": list(other)} for name, (one, other) in found.shape.items()},
        "dtype": {name: {"a": one.name, "b": other.name} for name, (one, other) in found.dtype.items()},
        "moved": {name: vars(move) for name, move in found.moved.items()},
        "same": list(found.same),
    }


def _print_plan(made: Plan, bridges: list[str]) -> None:
    rows = [(line.target, line.source, line.verdict, line.detail) for line in made.lines]
    printing.table("plan", ["target", "source", "verdict", "detail"], rows)
    counts = ", ".join(f"{count} {verdict}" for verdict, count in made.counts().items())
    printing.line(f"{'It fits' if made.fits else 'It does not fit'}: {counts or 'nothing on either side'}.")
    if bridges:
        printing.line(f"These rules would bridge it: {' '.join(bridges)}")
