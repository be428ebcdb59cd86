"""`python -m trainer.sweep ls | show | best | rerun`: sweeps as their ledgers have them, without TensorFlow."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nameplate.errors import Exit, NameplateError, exit_code
from nameplate.naming.names import did_you_mean
from nameplate.training import console
from nameplate.training.console import Screen, interruptible
from trainer.config.overrides import key_of
from trainer.ledger import leaderboard
from trainer.ledger.leaderboard import SweepError, best_job, find_sweep, sweeps_in
from trainer.ledger.ledger import Ledger
from trainer.ledger.record import JobRecord, State


@interruptible
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 1 when a job that was run again failed, 2 when refused."""
    asked = _parser().parse_args(arguments)
    try:
        return int(asked.command(asked))
    except NameplateError as error:
        Screen().fail(str(error))
        return exit_code(error)


def ls(asked: argparse.Namespace) -> int:
    """List the jobs of a sweep, or the sweeps in a directory of runs."""
    if asked.sweep is not None:
        ledger = find_sweep(asked.sweep, runs=asked.runs)
        records = ledger.records()
        if asked.json:
            console.as_json([leaderboard.job_as_plain(each) for each in records])
        else:
            _jobs(ledger, records)
        return _damaged(ledger)
    found = sweeps_in(Path(asked.runs))
    if asked.json:
        console.as_json({ledger.directory.name: dict(_counted(ledger.records())) for ledger in found})
        return max(map(_damaged, found), default=Exit.DONE)
    if not found:
        raise SweepError(f"There are no sweeps in {asked.runs}; python -m trainer -m KEY=A,B makes one.")
    rows = []
    for ledger in found:
        records = ledger.records()
        made = leaderboard.board_of(records)
        reached = f"{made.monitor} {made.best.best:.4f}" if made.best and made.best.best is not None else ""
        counted = ", ".join(f"{count} {state}" for state, count in _counted(records).items())
        rows.append((ledger.directory.name, counted, reached, ledger.about().get("called", "")))
    console.table(f"sweeps in {asked.runs}", ("sweep", "jobs", "best", "called"), rows)
    return max(map(_damaged, found))


def show(asked: argparse.Namespace) -> int:
    """Show the leaderboard of a sweep, or all that is known of one job."""
    ledger = find_sweep(asked.sweep, runs=asked.runs)
    if asked.job is not None:
        return _show_job(ledger, _job(ledger, asked.job), json=asked.json)
    made = leaderboard.board_of(ledger.records())
    if asked.json:
        console.as_json(leaderboard.as_plain(made))
        return _damaged(ledger)
    console.table(f"leaderboard of {ledger.directory}", leaderboard.columns(made), leaderboard.rows(made))
    if command := ledger.command():
        console.line(f"  again        {shlex.join(command)}")
    return _damaged(ledger)


def best(asked: argparse.Namespace) -> int:
    """Tell the best job of a sweep: its directory alone with --path, for a script."""
    ledger = find_sweep(asked.sweep, runs=asked.runs)
    found = best_job(ledger)
    if found is None:
        raise SweepError(f"No job of {ledger.directory} is done with a number; see python -m trainer.sweep ls")
    if asked.path:
        print(ledger.home(found.job))
        return Exit.DONE
    return _show_job(ledger, found, json=asked.json)


def rerun(asked: argparse.Namespace) -> int:
    """Run a sweep's last command again, or single jobs of it; either does only what is not done.

    Both come from the sweep's directory, so the packages that they trust count only where `--trust` names them too.
    """
    ledger = find_sweep(asked.sweep, runs=asked.runs)
    if not asked.jobs:
        command = ledger.command()
        if not command:
            raise SweepError(f"{ledger.directory} does not say by which command it was made; give the command again.")
        _refuse_trust(command, asked.trust)
        return subprocess.run([sys.executable, *command[1:]], check=False).returncode
    from trainer.sweep.control import sweep  # the other commands do without Hydra

    records = [_job(ledger, name) for name in asked.jobs]
    _refuse_trust([override for record in records for override in record.overrides], asked.trust)
    codes = []
    for record in records:
        if record.state is State.done and not asked.again:
            console.line(f"{record.job} is done; --again sets it aside and trains it anew")
            continue
        if record.state is State.done:
            console.line(f"what {record.job} had is in {_set_aside(ledger, record)}")
        own = [each for each in record.overrides if key_of(each) not in ("run", "runs")]
        where = [f"run={ledger.directory.name}", f"runs={ledger.directory.parent}"]
        codes.append(sweep(["-m", *own, *where], tells=False))
    return next((code for code in codes if code), Exit.DONE)


def _refuse_trust(overrides: Sequence[str], given: Sequence[str]) -> None:
    """Find packages that a stored command trusts, and this one does not: their code would run."""
    trusted = [word for each in overrides if key_of(each) == "trust" for word in re.split(r"[^\w.]+", each)[1:] if word]
    if unsaid := sorted(set(trusted) - set(given)):
        raise SweepError(
            f"the sweep was made with trust=[{','.join(unsaid)}], and the code of what is trusted would run; where "
            f"that is meant, say it again: --trust {' '.join(unsaid)}"
        )


def _set_aside(ledger: Ledger, record: JobRecord) -> Path:
    """Give the directory of a job that is done another name, and let the ledger plan it anew."""
    with ledger.hold(record.job):
        home = ledger.home(record.job)
        number = 1
        while (aside := home.with_name(f"{home.name}.before-{number}")).exists():
            number += 1
        home.rename(aside)
        fresh = JobRecord(record.job, State.planned, record.overrides, record.settings, record.usual)
        ledger.commit(replace(fresh, planned=record.planned))
    return aside


def _show_job(ledger: Ledger, record: JobRecord, *, json: bool) -> int:
    home = ledger.home(record.job)
    failure = home / "failure.txt"
    if json:
        told = {"directory": str(home), "settings": {**record.usual, **record.settings}}
        console.as_json(leaderboard.job_as_plain(record) | told)
        return Exit.DONE
    plain = leaderboard.job_as_plain(record)
    rows = [(key, leaderboard.in_words(value)) for key, value in plain.items() if value not in (None, {}, [], "error")]
    rows += [(key, leaderboard.in_words(value)) for key, value in record.settings.items()]
    console.table(str(home), ("", ""), rows)
    if failure.exists():
        console.line(f"\n{failure}:\n{failure.read_text('utf-8', 'replace')}")
    console.line(f"  checkpoints  ckpt ls {shlex.quote(str(home))}")
    console.line(f"  go on        init=checkpoint init.path={shlex.quote(str(home))}")
    return Exit.DONE


def _jobs(ledger: Ledger, records: Sequence[JobRecord]) -> None:
    keys = leaderboard.varying_keys(records)
    rows = [
        (
            each.job,
            each.state,
            *(leaderboard.in_words(each.setting(key)) for key in keys),
            each.best,
            f"{each.seconds:.1f}",
            each.exit_code,
            (each.error or each.pruned or "").partition("\n")[0],
        )
        for each in records
    ]
    names = (leaderboard.short_key(key, keys) for key in keys)
    console.table(str(ledger.directory), ("job", "state", *names, ">best", ">seconds", ">exit", ""), rows)


def _damaged(ledger: Ledger) -> int:
    """Say which records are damaged; return the exit code."""
    found = ledger.damaged()
    for line in found.values():
        Screen().fail(line)
    return Exit.FAILED if found else Exit.DONE


def _job(ledger: Ledger, name: str) -> JobRecord:
    """Return the record of the job whose name begins so."""
    found = [record for record in ledger.records() if record.job.startswith(name)]
    if len(found) == 1:
        return found[0]
    names = list(ledger.jobs())
    for line in (line for job, line in ledger.damaged().items() if job.startswith(name)):
        raise SweepError(f"{line}\nThe sweep's own command does the job again, from its last checkpoint.")
    if found:
        raise SweepError(f"{name} begins the names of {len(found)} jobs: {', '.join(each.job for each in found)}")
    raise SweepError(f"{ledger.directory} has no job {name}.{did_you_mean(name, names)} It has {', '.join(names)}")


def _counted(records: Sequence[JobRecord]) -> dict[str, int]:
    count = Counter(each.state for each in records)
    return {str(state): count[state] for state in State if count[state]}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer.sweep", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (ls, show, best, rerun):
        own = commands.add_parser(command.__name__, help=command.__doc__, description=command.__doc__)
        own.set_defaults(command=command)
        where = "its directory, or its name in --runs"
        own.add_argument("sweep", metavar="SWEEP", help=where, nargs="?" if command is ls else None)
        own.add_argument("--runs", default="runs", help="the directory of runs (default: runs)")
        if command is rerun:
            own.add_argument("jobs", nargs="*", metavar="JOB", help="only these; the beginning of a name is enough")
            own.add_argument("--trust", nargs="+", default=[], metavar="PACKAGE", help="packages whose code it may run")
            own.add_argument("--again", action="store_true", help="also what is done; what it had is set aside")
        else:
            own.add_argument("--json", action="store_true", help="for a program")
        if command is show:
            own.add_argument("job", nargs="?", metavar="JOB", help="the beginning of its name is enough")
        if command is best:
            own.add_argument("--path", action="store_true", help="print its directory, and nothing else")
    return parser


if __name__ == "__main__":
    sys.exit(main())
