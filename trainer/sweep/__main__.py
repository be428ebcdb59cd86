"""`python -m trainer.sweep ls | show | best | rerun`: sweeps, read from their ledgers without TensorFlow."""

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
    """Run the command and return its exit code: 0, 1 if a job that was run again failed, 2 if refused."""
    parsed = _parser().parse_args(arguments)
    try:
        return int(parsed.command(parsed))
    except NameplateError as error:
        Screen().fail(str(error))
        return exit_code(error)


def ls(arguments: argparse.Namespace) -> int:
    """List the jobs of a sweep, or the sweeps in a directory of runs."""
    if arguments.sweep is not None:
        ledger = find_sweep(arguments.sweep, runs=arguments.runs)
        records = ledger.records()
        if arguments.json:
            console.as_json([leaderboard.job_as_plain(record) for record in records])
        else:
            _print_jobs(ledger, records)
        return _report_damage(ledger)
    ledgers = sweeps_in(Path(arguments.runs))
    if arguments.json:
        console.as_json({ledger.directory.name: dict(_counted(ledger.records())) for ledger in ledgers})
        return max(map(_report_damage, ledgers), default=Exit.DONE)
    if not ledgers:
        raise SweepError(f"There are no sweeps in {arguments.runs}; python -m trainer -m KEY=A,B starts one.")
    rows = []
    for ledger in ledgers:
        records = ledger.records()
        board = leaderboard.board_of(records)
        reached = f"{board.monitor} {board.best.best:.4f}" if board.best and board.best.best is not None else ""
        counts = ", ".join(f"{count} {state}" for state, count in _counted(records).items())
        rows.append((ledger.directory.name, counts, reached, ledger.about().get("called", "")))
    console.table(f"sweeps in {arguments.runs}", ("sweep", "jobs", "best", "called"), rows)
    return max(map(_report_damage, ledgers))


def show(arguments: argparse.Namespace) -> int:
    """Show the leaderboard of a sweep, or everything about one job."""
    ledger = find_sweep(arguments.sweep, runs=arguments.runs)
    if arguments.job is not None:
        return _show_job(ledger, _job(ledger, arguments.job), json=arguments.json)
    board = leaderboard.board_of(ledger.records())
    if arguments.json:
        console.as_json(leaderboard.as_plain(board))
        return _report_damage(ledger)
    console.table(f"leaderboard of {ledger.directory}", leaderboard.columns(board), leaderboard.rows(board))
    if command := ledger.command():
        console.line(f"  again        {shlex.join(command)}")
    return _report_damage(ledger)


def best(arguments: argparse.Namespace) -> int:
    """Show the best job of a sweep, or with --path print only its directory, for a script."""
    ledger = find_sweep(arguments.sweep, runs=arguments.runs)
    record = best_job(ledger)
    if record is None:
        raise SweepError(f"No job of {ledger.directory} has a result; see python -m trainer.sweep ls")
    if arguments.path:
        print(ledger.home(record.job))
        return Exit.DONE
    return _show_job(ledger, record, json=arguments.json)


def rerun(arguments: argparse.Namespace) -> int:
    """Run a sweep's last command again, or single jobs of it; jobs that are done are skipped.

    The command comes from the sweep's directory, so a package that it trusts must also be named by `--trust`.
    """
    ledger = find_sweep(arguments.sweep, runs=arguments.runs)
    if not arguments.jobs:
        command = ledger.command()
        if not command:
            raise SweepError(f"{ledger.directory} does not have the command that made it; give the command again.")
        _refuse_trust(command, arguments.trust)
        return subprocess.run([sys.executable, *command[1:]], check=False).returncode
    from trainer.sweep.control import sweep  # here, because the other commands need no Hydra

    records = [_job(ledger, name) for name in arguments.jobs]
    _refuse_trust([override for record in records for override in record.overrides], arguments.trust)
    codes = []
    for record in records:
        if record.state is State.done and not arguments.again:
            console.line(f"{record.job} is done; --again moves it aside and trains it again")
            continue
        if record.state is State.done:
            console.line(f"the files of {record.job} are in {_set_aside(ledger, record)}")
        own = [override for override in record.overrides if key_of(override) not in ("run", "runs")]
        where = [f"run={ledger.directory.name}", f"runs={ledger.directory.parent}"]
        codes.append(sweep(["-m", *own, *where], records_command=False))
    return next((code for code in codes if code), Exit.DONE)


def _refuse_trust(overrides: Sequence[str], given: Sequence[str]) -> None:
    """Refuse packages that a stored command trusts and this one does not: their code would run."""
    trusts = [override for override in overrides if key_of(override) == "trust"]
    trusted = [word for override in trusts for word in re.split(r"[^\w.]+", override)[1:] if word]
    if unsaid := sorted(set(trusted) - set(given)):
        raise SweepError(
            f"the sweep was made with trust=[{','.join(unsaid)}], whose code would run. "
            f"To allow it, trust it again: --trust {' '.join(unsaid)}"
        )


def _set_aside(ledger: Ledger, record: JobRecord) -> Path:
    """Rename the directory of a job that is done, and reset its record to planned."""
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
        about = {"directory": str(home), "settings": {**record.usual, **record.settings}}
        console.as_json(leaderboard.job_as_plain(record) | about)
        return Exit.DONE
    plain = leaderboard.job_as_plain(record)
    rows = [(key, leaderboard.as_text(value)) for key, value in plain.items() if value not in (None, {}, [], "error")]
    rows += [(key, leaderboard.as_text(value)) for key, value in record.settings.items()]
    console.table(str(home), ("", ""), rows)
    if failure.exists():
        console.line(f"\n{failure}:\n{failure.read_text('utf-8', 'replace')}")
    console.line(f"  checkpoints  ckpt ls {shlex.quote(str(home))}")
    console.line(f"  start from   init=checkpoint init.path={shlex.quote(str(home))}")
    return Exit.DONE


def _print_jobs(ledger: Ledger, records: Sequence[JobRecord]) -> None:
    keys = leaderboard.varying_keys(records)
    rows = [
        (
            record.job,
            record.state,
            *(leaderboard.as_text(record.setting(key)) for key in keys),
            record.best,
            f"{record.seconds:.1f}",
            record.exit_code,
            (record.error or record.pruned or "").partition("\n")[0],
        )
        for record in records
    ]
    names = (leaderboard.short_key(key, keys) for key in keys)
    console.table(str(ledger.directory), ("job", "state", *names, ">best", ">seconds", ">exit", ""), rows)


def _report_damage(ledger: Ledger) -> int:
    """Print which records are damaged; return the exit code."""
    problems = ledger.damaged()
    for problem in problems.values():
        Screen().fail(problem)
    return Exit.FAILED if problems else Exit.DONE


def _job(ledger: Ledger, name: str) -> JobRecord:
    """Return the record of the only job whose name starts with `name`."""
    matches = [record for record in ledger.records() if record.job.startswith(name)]
    if len(matches) == 1:
        return matches[0]
    names = list(ledger.jobs())
    for line in (line for job, line in ledger.damaged().items() if job.startswith(name)):
        raise SweepError(f"{line}\nThe sweep's own command resumes the job from its last checkpoint.")
    if matches:
        jobs = ", ".join(record.job for record in matches)
        raise SweepError(f"{name} begins the names of {len(matches)} jobs: {jobs}")
    raise SweepError(f"{ledger.directory} has no job {name}.{did_you_mean(name, names)} It has {', '.join(names)}")


def _counted(records: Sequence[JobRecord]) -> dict[str, int]:
    count = Counter(record.state for record in records)
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
            own.add_argument("jobs", nargs="*", metavar="JOB", help="only these; a prefix of the name is enough")
            own.add_argument("--trust", nargs="+", default=[], metavar="PACKAGE", help="packages whose code it may run")
            own.add_argument("--again", action="store_true", help="also jobs that are done; moves their files aside")
        else:
            own.add_argument("--json", action="store_true", help="print one JSON document")
        if command is show:
            own.add_argument("job", nargs="?", metavar="JOB", help="a prefix of its name is enough")
        if command is best:
            own.add_argument("--path", action="store_true", help="print only its directory")
    return parser


if __name__ == "__main__":
    sys.exit(main())
