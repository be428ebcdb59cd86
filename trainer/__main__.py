"""`python -m trainer`, the console script `nameplate`: a run or a sweep from the command line, and its exit code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from nameplate.training.console import interruptible

if TYPE_CHECKING:
    from trainer.config.run_config import RunConfig


@interruptible
def main() -> int:
    """Run the command line and return the exit code; TensorFlow is imported only when a job starts."""
    # Imported here, so that `interruptible` already handles Ctrl-C.
    from nameplate.errors import Exit, NameplateError, exit_code
    from nameplate.training.console import Screen
    from trainer.config import application, help_text, is_help

    arguments = sys.argv[1:]
    if "--version" in arguments:  # else Hydra would print its own
        return _version()
    try:
        if is_help(arguments):
            print(help_text(arguments))
            return Exit.DONE
        if _is_sweep(arguments):
            from trainer.sweep.control import sweep

            return sweep(arguments)
        application(_job, arguments)
    except NameplateError as error:
        Screen().fail(str(error))
        return exit_code(error)
    return Exit.DONE


def _version() -> int:
    from nameplate.training import progress
    from nameplate.training.console import Screen

    Screen().say(", ".join(f"{name} {version}" for name, version in progress.about({})["versions"].items()))
    return 0


def _is_sweep(arguments: list[str]) -> bool:
    from trainer.config.overrides import shows, sweeps

    return sweeps(arguments) and not shows(arguments)


def _job(config: RunConfig) -> None:
    from nameplate.training.console import import_tensorflow
    from nameplate.training.remote_run import local_run
    from nameplate.training.run_directory import require_free

    if not config.dry_run and not _follows(config) and config.run is not None:
        require_free(local_run(config.runs, config.run, config.checkpoint.remote_cache))
    import_tensorflow()
    from trainer.run import train

    train(config)


def _follows(config: RunConfig) -> bool:
    """Say whether another worker of the run, the chief, locks its directory."""
    from nameplate.engine.cluster import cluster
    from nameplate.engine.config import StrategyKind

    members = cluster() if config.strategy.kind is StrategyKind.multi_worker else None
    return members is not None and not members.is_chief


if __name__ == "__main__":
    sys.exit(main())
