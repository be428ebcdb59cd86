"""`python -m trainer`, the console script `nameplate`: a run or a sweep from the command line, and its exit code."""

from __future__ import annotations

import sys
from pathlib import Path

from models.errors import NameplateError
from trainer import versions
from trainer.command_line.overrides import shows, sweeps
from trainer.command_line.quiet import import_tensorflow
from trainer.compose import application
from trainer.config.run import RunConfig
from trainer.config.strategy import StrategyKind
from trainer.console import Screen
from trainer.home import require_free
from trainer.outcome import Exit, exit_code
from trainer.workers.cluster import cluster


def main() -> int:
    """Run as the command line says and return the exit code; TensorFlow is imported only when a job starts."""
    arguments = sys.argv[1:]
    if "--version" in arguments:  # Hydra would tell its own
        Screen().say(", ".join(f"{name} {each}" for name, each in versions.about({})["versions"].items()))
        return Exit.DONE
    try:
        if sweeps(arguments) and not shows(arguments):
            from trainer.sweep.control import sweep

            return sweep(arguments)
        application(_job, arguments)
    except NameplateError as error:
        Screen().fail(str(error))
        return exit_code(error)
    return Exit.DONE


def _job(config: RunConfig) -> None:
    if not config.dry_run and not _follows(config):
        require_free(Path(config.runs), config.run)
    import_tensorflow()
    from trainer.flow import run

    run(config)


def _follows(config: RunConfig) -> bool:
    """Say whether another worker of the run holds its directory."""
    found = cluster() if config.strategy.kind is StrategyKind.multi_worker else None
    return found is not None and not found.is_chief


if __name__ == "__main__":
    sys.exit(main())
