"""The model that a command works on: its arguments, its devices, and the checkpoint that is meant."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nameplate.checkpoint import location
from nameplate.training.console import Screen


def parser_of(command: str, *, description: str, examples: str, replicas: bool = True) -> argparse.ArgumentParser:
    """Return the parser of a command on a trained model, with the arguments that all of them take."""
    parser = argparse.ArgumentParser(
        prog=f"python -m trainer.{command}",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", metavar="RUN", help="a run, a checkpoint or a .keras file")
    add("--which", default="best", metavar="best|latest|STEP", help="the checkpoint of a run; default: best")
    add("--trust", nargs="+", default=[], metavar="PACKAGE", help="packages whose code the run may use")
    if replicas:
        add("--replicas", type=int, metavar="N", help="devices that share a batch; default: all GPUs")
    return parser


def place_of(path: str, which: str, screen: Screen) -> str:
    """Return the file, or the checkpoint of a run, that a command line means; damaged checkpoints are reported.

    Raises:
        StoreError: there is none.
    """
    if Path(path).is_file() and Path(path).suffix:
        return path
    chosen: str | int = int(which) if which.isdecimal() else which
    return str(location.choose(path, chosen, lambda place, error: screen.say(f"{place} is skipped: {error}")))


def strategy_config(replicas: int | None) -> Any:
    """Return the devices of a command: all GPUs if there are several, or as many replicas as asked for."""
    from nameplate.engine.config import StrategyConfig, StrategyKind
    from nameplate.engine.strategy import gpu_count

    several = replicas is not None or gpu_count() > 1
    return StrategyConfig(kind=StrategyKind.auto if several else StrategyKind.single, replicas=replicas)
