"""The command line of `ckpt`: arguments in, an exit code out."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from models.errors import NameplateError
from models.store import DamagedError
from trainer.ckpt import reading
from trainer.ckpt.printing import printable

DONE, DAMAGED, REFUSED, PIPE_CLOSED = 0, 1, 2, 141


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


_COMMANDS: list[tuple[str, Callable[[argparse.Namespace], int], str, Callable[[argparse.ArgumentParser], None]]] = [
    ("ls", reading.ls, "list the checkpoints of a run", _one_path),
    ("show", reading.show, "show metrics, provenance, files and tensors of one checkpoint", _one_path),
    (
        "verify",
        reading.verify,
        "read every byte and say all that is damaged; exit 1 when anything is",
        _paths,
    ),
]
