"""The `ckpt` tool: checkpoints listed, shown, verified and edited, without TensorFlow.

The command line is here; `reading` has the commands that look, `editing` those that write.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from nameplate.checkpoint import DamagedError
from nameplate.errors import NameplateError
from nameplate.training.console import interruptible, printable
from trainer.cli.ckpt import editing, reading

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
    except BrokenPipeError:  # `ckpt show RUN | head`: the reader has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    return code


def _say(error: NameplateError, code: int) -> int:
    print(f"ckpt: {printable(str(error))}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ckpt",
        description="Inspect checkpoints and edit them, by name, without TensorFlow.",
        epilog="PATH is a run (runs/digits), its checkpoints, one of them, or a pointer (runs/digits/best), also in a "
        "store (s3://bucket/runs/digits). Exit codes: 0 done, 1 damage found, 2 refused.",
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
    parser.add_argument("target", metavar="TARGET", help="another one, whose names and shapes SOURCE has to match")
    parser.add_argument("rules", metavar="RULE", nargs="*", help=_RULE)
    parser.add_argument("--verbose", action="store_true", help="a row for every name, not only for what is left over")


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
    parser.add_argument("--scales", metavar="X", type=float, nargs="+", help="one factor a source; default: equal")
    parser.add_argument("--position", metavar="T", type=float, help="between the first source (0) and the second (1)")
    parser.add_argument("--base", metavar="PATH", help="add to this the difference that each source has learned")


def _retention(parser: argparse.ArgumentParser) -> None:
    _one_path(parser)
    parser.add_argument("--last", metavar="N", type=int, required=True, help="keep the newest N")
    parser.add_argument("--best", metavar="K", type=int, default=0, help="and the best K by --metric")
    parser.add_argument("--metric", metavar="NAME")
    parser.add_argument("--mode", choices=["min", "max"], default="min", help="whether lower or higher is better")
    parser.add_argument("--every", metavar="M", type=int, help="and those whose step is a multiple of M")
    parser.add_argument("--dry-run", action="store_true", help="only print what would be deleted")


_RULE = "OLD=NEW for a variable, layer or container; OLD= to drop it; re:PATTERN=REPLACEMENT"

_Declare = Callable[[argparse.ArgumentParser], None]

_COMMANDS: list[tuple[str, Callable[[argparse.Namespace], int], str, _Declare]] = [
    ("ls", reading.ls, "list the checkpoints of a run", _one_path),
    ("show", reading.show, "show metrics, provenance, files and tensors of one checkpoint", _one_path),
    ("verify", reading.verify, "read every byte and report all damage; exit 1 if there is any", _paths),
    ("diff", reading.diff, "compare two by name: names, shapes, changes of values", _two_sources),
    ("plan", reading.plan, "show how SOURCE would load into TARGET; exit 1 if anything is left over", _planning),
    ("rename", editing.rename, "write a copy with other names, slots included", _renaming),
    ("extract", editing.extract, "write some layers to a new file or run", _patterns),
    ("merge", editing.combine, "average, interpolate, or add what others have learned", _merging),
    ("convert", editing.convert, "convert to and from plain safetensors, Keras and PyTorch files", _converting),
    ("prune", editing.prune, "delete all but the last, the best and every M-th", _retention),
    ("push", editing.push, "send the store of a run (s3://...) the checkpoints and logs that it lacks", _one_path),
]
