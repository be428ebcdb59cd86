"""A run that several workers share: one directory, one writer, one starting point, one end when a worker is lost."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from nameplate.engine import host_collectives
from nameplate.engine.cluster import cluster
from nameplate.engine.config import StrategyConfig, StrategyKind
from nameplate.engine.coordinator import Coordinator, WorkerLostError
from nameplate.errors import NameplateError, NotFiniteError, StoppedError
from nameplate.training import progress
from nameplate.training.run_directory import RunDirectory

# Seconds to wait for word of a lost worker. TensorFlow's collectives fail first, before the coordinator can say who.
NEWS = 15.0
RESTART = "Start all of them again with the same command: the run continues from its last checkpoint."


def coordinator_of(strategy: StrategyConfig, *, config: str) -> AbstractContextManager[Coordinator | None]:
    """Return the workers of this run, to be entered; None in it if the run has one process.

    `config` is the run's whole configuration as text: workers that were started with another one are refused.
    """
    members = cluster() if strategy.kind is StrategyKind.multi_worker else None
    if members is None:
        return nullcontext()
    started = hashlib.sha256(f"{progress.about({})}\n{config}".encode()).hexdigest()
    return Coordinator(members, job=started, patience=strategy.start_timeout)


def writes(coordinator: Coordinator | None) -> bool:
    """Say whether this process writes files and prints: the only one, or the chief."""
    return coordinator is None or coordinator.is_chief


@contextmanager
def shared_home(
    home: AbstractContextManager[RunDirectory | None], coordinator: Coordinator | None
) -> Iterator[RunDirectory | None]:
    """Enter the run's directory, None for a dry run. Only the chief enters `home`, and tells the others where it is.

    Raises:
        NameplateError: the directory cannot be used; every worker raises it.
    """
    if coordinator is not None and not coordinator.is_chief:
        word = coordinator.from_chief()
        if "refused" in word:
            raise NameplateError(f"the chief refused: {word['refused']}")
        coordinator.watch()
        yield None if word["home"] is None else RunDirectory(Path(word["home"]))
        return
    entered = False
    try:
        with home as own:
            entered = True
            if coordinator is not None:
                coordinator.broadcast({"home": None if own is None else str(own.path.absolute())})
                coordinator.watch()
            yield own
    except NameplateError as error:
        if coordinator is not None and not entered:
            coordinator.broadcast({"refused": str(error)})
        raise


def same_start(step: int, where: Path, *, digest: str = "") -> None:
    """Refuse workers that restored different steps, or that leave out other examples: they do not see the same files.

    Raises:
        NameplateError: with the step that each worker restored.
    """
    number = int(digest[:12] or "0", 16)  # as much as a float64 holds
    rows = host_collectives.gather_numbers([step, number])
    if len(set(rows[:, 1].tolist())) > 1:
        raise NameplateError("the workers find different examples damaged: all of them must see the same data")
    steps = [int(row) for row in rows[:, 0]]
    if len(set(steps)) > 1:
        restored = ", ".join(f"worker {index} step {own}" for index, own in enumerate(steps))
        raise NameplateError(
            f"the workers find different checkpoints in {where}: {restored}. "
            "All of them read it: runs=DIRECTORY must be one that they share, e.g. over NFS."
        )


@contextmanager
def lost_workers(coordinator: Coordinator | None) -> Iterator[None]:
    """Turn what TensorFlow raises when a worker is lost into one error, whose exit code asks for a restart."""
    try:
        yield
    except (NotFiniteError, StoppedError):
        raise
    except Exception as error:
        if coordinator is None or not (lost := _lost(error, coordinator)):
            raise
        raise WorkerLostError(f"{lost} is gone, and this worker stops too. {RESTART}") from error


def aborted(error: Exception) -> bool:
    """Say whether an error is what TensorFlow raises in a worker when another one is gone."""
    ours = isinstance(error, NameplateError)
    return not ours and ("Collective ops is aborted" in str(error) or "CoordinationService" in str(error))


def _lost(error: Exception, coordinator: Coordinator) -> str | None:
    if isinstance(error, NameplateError):
        return None
    gone = aborted(error)
    return coordinator.lost(NEWS if gone else 1.0) or ("a worker" if gone else None)
