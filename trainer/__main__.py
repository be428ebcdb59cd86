"""`python -m trainer`, the console script `nameplate`: a run or a sweep from the command line, and its exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.command_line.interrupts import interruptible

if TYPE_CHECKING:
    from trainer.config.run import RunConfig


@interruptible
def main() -> int:
    """Run as the command line says and return the exit code; TensorFlow is imported only when a job starts."""
    # Imported here, so that Ctrl-C is heard in words from the first moment on.
    from models.errors import NameplateError
    from trainer.compose import application
    from trainer.console import Screen
    from trainer.outcome import Exit, exit_code

    arguments = sys.argv[1:]
    if "--version" in arguments:  # Hydra would tell its own
        return _version()
    try:
        if _is_sweep(arguments):
            from trainer.sweep.control import sweep

            return sweep(arguments)
        application(_job, arguments)
    except NameplateError as error:
        Screen().fail(str(error))
        return exit_code(error)
    return Exit.DONE


def _version() -> int:
    from trainer import versions
    from trainer.console import Screen

    Screen().say(", ".join(f"{name} {version}" for name, version in versions.about({})["versions"].items()))
    return 0


def _is_sweep(arguments: list[str]) -> bool:
    from trainer.command_line.overrides import shows, sweeps

    return sweeps(arguments) and not shows(arguments)


def _job(config: RunConfig) -> None:
    from trainer.command_line.quiet import import_tensorflow
    from trainer.home import require_free

    if not config.dry_run and not _follows(config):
        require_free(Path(config.runs), config.run)
    import_tensorflow()
    from trainer.flow import run

    run(config)


def _follows(config: RunConfig) -> bool:
    """Say whether another worker of the run holds its directory."""
    from trainer.config.strategy import StrategyKind
    from trainer.workers.cluster import cluster

    found = cluster() if config.strategy.kind is StrategyKind.multi_worker else None
    return found is not None and not found.is_chief


if __name__ == "__main__":
    sys.exit(main())
