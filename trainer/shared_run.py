"""A run that several workers share: one directory, one writer, one beginning, and one end when one of them is gone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from nameplate.engine import exchange
from nameplate.engine.cluster import cluster
from nameplate.engine.config import StrategyKind
from nameplate.engine.coordinator import Team, WorkerLostError
from nameplate.errors import NameplateError, NotFiniteError, StoppedError
from nameplate.training import progress
from nameplate.training.run_directory import Home, open_home
from trainer.config import to_yaml
from trainer.config.run_config import RunConfig

NEWS = 15.0  # seconds that the news of a lost worker may take after TensorFlow has failed


def team_of(config: RunConfig) -> AbstractContextManager[Team | None]:
    """Return the workers to meet, none where the run has one process."""
    found = cluster() if config.strategy.kind is StrategyKind.multi_worker else None
    if found is None:
        return nullcontext()
    started = hashlib.sha256(f"{progress.about({})}\n{to_yaml(config)}".encode()).hexdigest()
    return Team(found, job=started, patience=config.strategy.start_timeout)


def writes(team: Team | None) -> bool:
    """Say whether this process writes, and speaks: the only one, or the chief."""
    return team is None or team.is_chief


@contextmanager
def shared_home(config: RunConfig, team: Team | None) -> Iterator[Home | None]:
    """Enter the run's directory: the chief alone locks it and says where it is; none for a dry run.

    Raises:
        NameplateError: the directory cannot be used; every worker raises it.
    """
    if team is not None and not team.is_chief:
        word = team.hear()
        if "refused" in word:
            raise NameplateError(f"the chief refused: {word['refused']}")
        team.watch()
        yield None if word["home"] is None else Home(Path(word["home"]))
        return
    entered = False
    try:
        with _own_home(config) as home:
            entered = True
            if team is not None:
                team.tell({"home": None if home is None else str(home.path.absolute())})
                team.watch()
            yield home
    except NameplateError as error:
        if team is not None and not entered:
            team.tell({"refused": str(error)})
        raise


def same_start(step: int, where: Path) -> None:
    """Refuse workers that stand at different steps: they do not see the same directory.

    Raises:
        NameplateError: with the step that each one found.
    """
    steps = [int(each) for each in exchange.exchanged([step])[:, 0]]
    if len(set(steps)) > 1:
        found = ", ".join(f"worker {index} step {each}" for index, each in enumerate(steps))
        raise NameplateError(
            f"the workers find different checkpoints in {where}: {found}. "
            "All of them read it: runs=DIRECTORY must be one that they share, e.g. over NFS."
        )


@contextmanager
def lost_workers(team: Team | None) -> Iterator[None]:
    """Turn what TensorFlow raises when a worker is gone into one error, with the code that asks for another start."""
    try:
        yield
    except (NotFiniteError, StoppedError):
        raise
    except Exception as error:
        if team is None or not (gone := _gone(error, team)):
            raise
        raise WorkerLostError(
            f"{gone} is gone, and this worker ends too. Start all of them again with the same command: the run goes "
            "on from its last checkpoint."
        ) from error


def _gone(error: Exception, team: Team) -> str | None:
    if isinstance(error, NameplateError):
        return None
    aborted = "Collective ops is aborted" in str(error) or "CoordinationService" in str(error)
    return team.lost(NEWS if aborted else 1.0) or ("a worker" if aborted else None)


def _own_home(config: RunConfig) -> AbstractContextManager[Home | None]:
    if config.dry_run:
        return nullcontext()
    return open_home(Path(config.runs), config.run, resume=config.resume)
