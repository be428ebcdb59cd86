"""`python -m trainer.names FILE|CHECKPOINT`: the layers of any model file, and the names that break a policy.

Names and shapes are read as data, without TensorFlow and without executing anything in the file; only `--fix` of a
`.keras` file builds the model. Exit codes: 0 the names are valid, 1 they are not, 2 refused.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from nameplate import checkpoint as store
from nameplate.checkpoint import location
from nameplate.errors import NameplateError
from nameplate.formats import limits, registry
from nameplate.formats import name_table as tables
from nameplate.formats.policy_file import is_policy_file, policy_of
from nameplate.naming import names, rules
from nameplate.naming import policy as policies
from nameplate.naming.policy import Policy, PolicyMode, Violation
from nameplate.training import console
from nameplate.training.console import import_tensorflow, interruptible

VALID, INVALID, REFUSED, PIPE_CLOSED = 0, 1, 2, 141


@interruptible
def main(argv: Sequence[str] | None = None) -> int:
    """Print the table and return the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        policy = _policy(arguments.policy)
        table = read_table(arguments.path)
        violations = table.violations(policy)
        if arguments.fix:
            print(
                f"names: {console.printable(_fix(arguments.path, table, policy, Path(arguments.fix)))}",
                file=sys.stderr,
            )
        (_print_json if arguments.json else _print_table)(table, violations)
        sys.stdout.flush()
    except BrokenPipeError:  # `... | head`: the reader has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except NameplateError as error:
        print(f"names: {console.printable(str(error))}", file=sys.stderr)
        return REFUSED
    return INVALID if violations else VALID


def read_table(path: str) -> tables.NameTable:
    """Return the layers and arrays of a model file or of a checkpoint; a run means its newest.

    Raises:
        NameplateError: there is no such file, or it is of another kind.
    """
    file = Path(path)
    if registry.is_weights(file) or (file.is_file() and file.name not in store.pointers(file.parent)):
        return registry.read_table(file)
    return _checkpoint_table(location.find_one(path))


def _checkpoint_table(path: Path) -> tables.NameTable:
    checkpoint = store.open(path)
    records = checkpoint.weights.records
    arrays = [tables.Array(name, record.shape, record.dtype.name) for name, record in records.items()]
    owners = {names.split(name)[0]: record.layer_class for name, record in records.items()}
    classes = {layer: kind for layer, kind in owners.items() if layer and kind}
    with checkpoint:
        config = limits.parsed(checkpoint.model, f"{path}: its model") if checkpoint.model else {}
    return tables.of_config(config if isinstance(config, dict) else {}, arrays, classes)


def _policy(word: str) -> Policy:
    """Return the policy in a file, or that of an option of `naming`: strict, or one that was added to conf/naming."""
    if word in [mode.value for mode in PolicyMode] or is_policy_file(word):
        return policy_of(word)
    from trainer.config import run_config

    return run_config([f"naming={word}"]).naming


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _print_table(table: tables.NameTable, violations: Sequence[Violation]) -> None:
    by_name: dict[str, list[Violation]] = {}
    for violation in violations:
        by_name.setdefault(violation.name, []).append(violation)
    rows = []
    total = 0
    for item in table.layers:
        arrays = table.arrays_of(item.name)
        parameters = sum(array.size for array in arrays)
        total += parameters
        shapes = ", ".join(f"{names.split(array.name)[1]} {array.shape}" for array in arrays)
        own = (each for each in by_name.get(item.name, []) if not each.message.startswith(policies.MODEL_NAME))
        problems = "; ".join(map(_with_suggestion, own))
        rows.append([item.name, item.classes[0], shapes, f"{parameters:,}" if arrays else "", problems])
    console.table(table.model, ["layer", "class", "variables", ">parameters", "violation"], rows)
    counts = _counted(len(table.layers), "layer"), _counted(total, "parameter"), _counted(len(violations), "violation")
    console.line(", ".join(counts))
    listed = {item.name for item in table.layers}
    for violation in violations:
        if violation.name not in listed or violation.message.startswith(policies.MODEL_NAME):
            console.line(f"{violation.name}: {violation.message}")


def _with_suggestion(violation: Violation) -> str:
    return f"{violation.message}, e.g. {violation.suggestion}" if violation.suggestion else violation.message


def _print_json(table: tables.NameTable, violations: Sequence[Violation]) -> None:
    layers = [
        {
            "name": item.name,
            "class": item.classes[0],
            "kind": item.kind.value,
            "variables": {
                names.split(array.name)[1]: {"shape": list(array.shape), "dtype": array.dtype}
                for array in table.arrays_of(item.name)
            },
            "parameters": sum(array.size for array in table.arrays_of(item.name)),
        }
        for item in table.layers
    ]
    broken = [
        {"name": own.name, "rule": own.rule, "message": own.message, "suggestion": own.suggestion} for own in violations
    ]
    console.as_json({"model": table.model, "layers": layers, "violations": broken})


def _fix(path: str, table: tables.NameTable, policy: Policy, out: Path) -> str:
    """Write the repaired `.keras` file, or for any other file the rename map `{old: new}` as JSON; return what it did.

    Raises:
        NameplateError: a path that cannot be written, or has another suffix.
    """
    whole = path.endswith(".keras") and out.suffix == ".keras"
    if not whole and registry.kind(out) is not None:
        raise NameplateError(
            f"--fix {out}: only from a .keras file to a .keras file is a repaired model written; for {path} the "
            f"rename map is, as JSON: give --fix {out.with_suffix('.json').name}"
        )
    if not out.parent.is_dir() or out.is_dir():
        raise NameplateError(f"--fix {out}: {'it' if out.is_dir() else out.parent} is {_instead(out)}")
    try:
        return _write_repaired(path, policy, out) if whole else _write_map(table, policy, out)
    except OSError as error:
        raise NameplateError(f"--fix {out}: cannot be written: {error.strerror or error}") from None


def _instead(out: Path) -> str:
    return "a directory; name a file" if out.is_dir() else "not a directory; create it first, or name another"


def _write_repaired(path: str, policy: Policy, out: Path) -> str:
    import_tensorflow()
    from nameplate.graph.rename import repaired
    from nameplate.io.save import load, save

    save(repaired(load(path), policy), out)
    return f"wrote {out}: the model with repaired names, uncompiled"


def _write_map(table: tables.NameTable, policy: Policy, out: Path) -> str:
    broken = list(policies.broken(policy, table.layers))
    better = policies.suggestions(policy, table.layers, broken)
    before = [item.name for item in table.layers]
    after = rules.renamed(
        before, {index: own for index, own in better.items() if own}, [item.parent for item in table.layers]
    )
    mapping = {old: new for old, new in zip(before, after, strict=True) if old != new}
    out.write_text(json.dumps(mapping, indent=2) + "\n", encoding="utf-8")
    return f"wrote {out}: the rename map, {len(mapping)} names"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.names",
        description="The layers of a model file or checkpoint, and the names that break a policy.",
        epilog="Exit codes: 0 the names are valid, 1 they are not, 2 refused.",
    )
    parser.add_argument(
        "path",
        metavar="FILE|CHECKPOINT",
        help=f"{', '.join(registry.TABLES)}, a SavedModel, a run or one of its checkpoints",
    )
    parser.add_argument(
        "--policy", default="strict", help="strict, another option of conf/naming, or the file of a policy"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--fix", metavar="OUT", help="write the repaired .keras file (uncompiled), or the rename map as JSON"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
