"""From what a user typed to the sweep meant, and to its best job."""

from __future__ import annotations

from pathlib import Path

from models.errors import NameplateError
from models.names import did_you_mean
from models.store import layout
from trainer.config.init import From
from trainer.ledger.board import board_of
from trainer.ledger.ledger import Ledger, is_sweep
from trainer.ledger.record import Record
from trainer.places import find_one


class SweepError(NameplateError):
    """There is no such sweep, or no such job in it."""


def sweeps_in(runs: Path) -> list[Ledger]:
    """Return the sweeps in a directory of runs, by name."""
    return [Ledger(runs / name) for name in layout.listing(runs) if is_sweep(runs / name)]


def find_sweep(text: str, *, runs: str) -> Ledger:
    """Return the sweep at the path `text`, or of that name among the runs.

    Raises:
        SweepError: with the sweeps that there are.
    """
    for path in (Path(text), Path(runs) / text):
        if is_sweep(path):
            return Ledger(path)
    names = [ledger.directory.name for ledger in sweeps_in(Path(runs))]
    listed = f"There are {', '.join(names)} in {runs}" if names else f"There is none in {runs}"
    raise SweepError(f"There is no sweep {text}.{did_you_mean(Path(text).name, names)} {listed}.")


def locate(text: str, *, which: From, runs: str) -> str:
    """Return where the weights are that a path means, or the name of a run or sweep: a path that can be opened.

    A job of a sweep has the sweep's directory for its runs, and sees those beside the sweep as well.

    Raises:
        SweepError: the sweep has no job that is done.
        PlaceError: the run has no checkpoint.
    """
    places = [Path(text), Path(runs) / text, Path(runs).parent / text]
    if not is_sweep(Path(runs)):
        places.pop()
    path = next((each for each in places if each.exists()), Path(text))
    if is_sweep(path):
        path = best_home(path)
    if which is From.latest and path.is_dir():
        return str(find_one(str(path)))
    return str(path)


def best_home(directory: Path) -> Path:
    """Return the directory of a sweep's best job.

    Raises:
        SweepError: none is done with a number, or a record is damaged.
    """
    ledger = Ledger(directory)
    best = best_job(ledger)
    if best is None:
        raise SweepError(f"No job of the sweep {directory} is done with a number; there is no best one to begin from.")
    return ledger.home(best.job)


def best_job(ledger: Ledger) -> Record | None:
    """Return a sweep's best job, None where none is done with a number.

    Raises:
        SweepError: a record is damaged, so that its job may be the best.
    """
    if damaged := ledger.damaged():
        raise SweepError(
            "\n".join(
                [
                    *damaged.values(),
                    "Which job is best is not known without it. The sweep's own command does the job again, from its "
                    "last checkpoint; or delete the record, to leave the job out.",
                ]
            )
        )
    return board_of(ledger.records()).best
