"""The `ckpt` tool: checkpoints listed, shown, verified and edited, without TensorFlow.

The command line is here; `reading` has the commands that look, `editing` those that write.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from nameplate import checkpoint as store
from nameplate.checkpoint import DamagedError
from nameplate.errors import NameplateError
from nameplate.training import console, run_directory
from nameplate.training.console import interruptible, printable
from trainer.cli.ckpt import editing, reading

FAILED = 1


def prune(arguments: argparse.Namespace) -> int:
    """Delete checkpoints of a run that is not being trained; never the newest good one, nor one that a pointer leads
    to.
    """
    directory = run_directory.find_directory(arguments.path)
    run = directory.parent if directory.name == run_directory.CHECKPOINTS else directory
    rule = {name: getattr(arguments, name) for name in ("last", "best", "metric", "mode", "every")}
    rule |= {"thorough": True, "partial": True}
    if arguments.dry_run:
        paths = store.to_delete(directory, **rule)
        return _report(arguments, store.Deleted(tuple(paths), {}), "would be deleted")
    with store.RunLock(run):
        return _report(arguments, store.keep(directory, **rule), "deleted")


def _report(arguments: argparse.Namespace, deleted: store.Deleted, what: str) -> int:
    if arguments.json:
        failed = {str(path): str(error) for path, error in deleted.failed.items()}
        console.as_json({"deleted": [str(path) for path in deleted.removed], "failed": failed, "what": what})
    else:
        for path in deleted.removed:
            console.line(f"{path}: {what}")
        for error in deleted.failed.values():
            console.line(str(error))
        if not deleted.removed and not deleted.failed:
            console.line("Nothing to delete.")
    return FAILED if deleted.failed else 0


DONE, DAMAGED, REFUSED, PIPE_CLOSED = 0, 1, 2, 141


@interruptible
def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 damage found, 2 refused."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except DamagedError as error:
        return _say(error, DAMAGED)
    except NameplateError as error:
        return _say(error, REFUSED)
    except BrokenPipeError:  # `ckpt show RUN | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    return code


def _say(error: NameplateError, code: int) -> int:
    print(f"ckpt: {printable(str(error))}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ckpt",
        description="Look at checkpoints and edit them, by name, without TensorFlow.",
        epilog="PATH is a run (runs/digits), its checkpoints, one of them, or a pointer (runs/digits/best). "
        "Exit codes: 0 done, 1 damage found, 2 refused.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, run, summary, declare in _COMMANDS:
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        declare(command)
        command.add_argument("--json", action="store_true", help="print one JSON document")
        command.set_defaults(run=run)
    return parser


def _one_path(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH")


def _paths(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", nargs="+")


def _two_sources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help="a PATH or a file of weights")
    parser.add_argument("b", metavar="B")
    parser.add_argument("--only", metavar="NAME", action="append", default=[], help="a layer, variable or pattern")


def _planning(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="a PATH or a file of weights")
    parser.add_argument("target", metavar="TARGET", help="another, whose names and shapes are wanted")
    parser.add_argument("rules", metavar="RULE", nargs="*", help=_RULE)


def _renaming(parser: argparse.ArgumentParser) -> None:
    _conversion(parser)
    parser.add_argument("rules", metavar="RULE", nargs="+", help=_RULE)


def _patterns(parser: argparse.ArgumentParser) -> None:
    _conversion(parser)
    parser.add_argument("patterns", metavar="NAME", nargs="+", help="a layer, variable or pattern")


def _conversion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="a PATH or a file of weights")
    parser.add_argument("target", metavar="TARGET", help="a new .safetensors file, or the directory of a new run")


def _converting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="a PATH or a file of weights: .keras .h5 .safetensors .pt ...")
    parser.add_argument(
        "target", metavar="TARGET", help="a new .safetensors, .keras, .weights.h5 or .pt file, or a run"
    )
    parser.add_argument("rules", metavar="MODULE=LAYER", nargs="*", help="for a .pt file: PyTorch's name of a layer")


def _merging(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", metavar="SOURCE", nargs="+", help="a PATH or a file of weights")
    parser.add_argument("--to", dest="target", metavar="TARGET", required=True, help="a new file or run")
    parser.add_argument("--scales", metavar="X", type=float, nargs="+", help="one a source; equal when left out")
    parser.add_argument("--position", metavar="T", type=float, help="from the first source (0) to the second (1)")
    parser.add_argument("--base", metavar="PATH", help="add to this what each source learned beyond it")


def _retention(parser: argparse.ArgumentParser) -> None:
    _one_path(parser)
    parser.add_argument("--last", metavar="N", type=int, required=True, help="keep the newest N")
    parser.add_argument("--best", metavar="K", type=int, default=0, help="and the best K by --metric")
    parser.add_argument("--metric", metavar="NAME")
    parser.add_argument("--mode", choices=["min", "max"], default="min", help="which value of it is better")
    parser.add_argument("--every", metavar="M", type=int, help="and those whose step is a multiple of M")
    parser.add_argument("--dry-run", action="store_true", help="say what would be deleted")


_RULE = "OLD=NEW for a variable, layer or container; OLD= to drop it; re:PATTERN=REPLACEMENT"

_Declare = Callable[[argparse.ArgumentParser], None]

_COMMANDS: list[tuple[str, Callable[[argparse.Namespace], int], str, _Declare]] = [
    ("ls", reading.ls, "list the checkpoints of a run", _one_path),
    ("show", reading.show, "show metrics, provenance, files and tensors of one checkpoint", _one_path),
    ("verify", reading.verify, "read every byte and say all that is damaged; exit 1 when anything is", _paths),
    ("diff", reading.diff, "compare two by name: names, shapes, how far values moved", _two_sources),
    ("plan", reading.plan, "say how SOURCE would load into TARGET; exit 1 if anything is left over", _planning),
    ("rename", editing.rename, "write a copy with other names, slots included", _renaming),
    ("extract", editing.extract, "write some layers to a file or run of their own", _patterns),
    ("merge", editing.combine, "average, interpolate, or add what others learned", _merging),
    ("convert", editing.convert, "to plain safetensors, Keras and PyTorch files, and from them", _converting),
    ("prune", prune, "delete all but the last, the best and every M-th", _retention),
]
