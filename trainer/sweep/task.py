"""`run_job`: one job of a sweep, found done in the ledger, or trained and recorded; called by Hydra's launchers.

The job runs in a process of its own, which also holds its lock and its devices: they are free when it is gone, whatever
happened to the process that started it.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from nameplate.engine.cluster import cluster
from nameplate.engine.config import StrategyKind
from nameplate.errors import Exit, NameplateError
from nameplate.training.config import CheckpointInitConfig
from nameplate.training.console import Screen
from trainer.config.run_config import RunConfig
from trainer.config.schemas import SCHEMAS
from trainer.ledger.ledger import Ledger
from trainer.ledger.record import SEED, JobRecord, State, identity, now, parted, settings_of
from trainer.sweep.leases import Lease, devices_of, leased
from trainer.sweep.processes import JobProcess, Spec, start, write_failure

BEGAN = "NAMEPLATE_SWEEP_BEGAN"  # environment variable of all processes of a sweep: when it was called
_SHOWN_LINES = 60  # of the output of a job that died without an error message


@dataclass(frozen=True)
class SweepJob:
    """A job as its command line describes it."""

    config: RunConfig  # `run` is the sweep's name, `runs` the directory that the sweep is in
    name: str  # its identity
    overrides: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)  # that identify it
    usual: Mapping[str, Any] = field(default_factory=dict)  # the others that its result depends on

    @property
    def directory(self) -> Path:
        """Return the sweep's directory."""
        assert self.config.run is not None
        return Path(self.config.runs) / self.config.run

    def planned(self) -> JobRecord:
        """Return the record of a job that has not started."""
        return JobRecord(self.name, State.planned, self.overrides, self.settings, self.usual, planned=now())


def run_job(job: SweepJob) -> JobRecord:
    """Return the record of a job; train it first unless it is done.

    A job that another process runs is waited for. A failure is recorded, not raised.

    Raises:
        NameplateError: the ledger cannot be written.
    """
    ledger = Ledger(job.directory)
    if _follows(job.config):
        return _followed(ledger, job)
    with ExitStack() as stack:
        lock = stack.enter_context(ledger.hold(job.name, waiting=lambda: _say(f"{job.name} runs in another process")))
        record = ledger.record(job.name) or job.planned()
        if is_done(record, job) or (job.config.sweep.fail_fast and _has_failed(ledger)):
            return record
        try:
            waiting = stack.enter_context(
                leased(devices_of(job.config), waiting=lambda text: _say(f"{job.name} {text}"))
            )
        except NameplateError as error:
            return _refused(ledger, record, error)
        return _trained(ledger, _begun(record, job), job, waiting, lock)


def is_done(record: JobRecord, job: SweepJob) -> bool:
    """Say whether a job needs no more training.

    A job that was stopped early does if the sweep has no rule for that now; so does one whose directory was deleted.
    """
    stays = record.pruned is None or job.config.sweep.prune.rule is not None
    return record.state is State.done and stays and (job.directory / record.job).is_dir()


def _follows(config: RunConfig) -> bool:
    """Say whether this is a worker that is not the chief; the chief records the job."""
    members = cluster() if config.strategy.kind is StrategyKind.multi_worker else None
    return members is not None and not members.is_chief


def _followed(ledger: Ledger, job: SweepJob) -> JobRecord:
    """Take part in a job unless it is done; its lock and its record are the chief's."""
    record = ledger.record(job.name) or job.planned()
    if is_done(record, job):
        return record
    code = _waited(start(_spec(_begun(record, job), job, Lease(), records=False), keep=[]))
    return replace(record, state=State.failed if code else State.done, exit_code=code)


def _begun(record: JobRecord, job: SweepJob) -> JobRecord:
    return replace(
        record,
        state=State.running,
        overrides=job.overrides,
        settings=job.settings,
        usual=job.usual,
        started=now(),
        ended=None,
        attempts=record.attempts + 1,
        host=socket.gethostname(),
        pid=None,
        exit_code=None,
        error=None,
    )


def _trained(ledger: Ledger, record: JobRecord, job: SweepJob, lease: Lease, lock: int) -> JobRecord:
    ledger.commit(record)
    spec = _spec(record, job, lease)
    began = time.monotonic()
    code = _waited(start(spec, keep=[lock, *lease.descriptors]))
    seconds = record.seconds + time.monotonic() - began
    return _settled(ledger, replace(record, seconds=seconds), spec, code)


def _spec(record: JobRecord, job: SweepJob, lease: Lease, *, records: bool = True) -> Spec:
    own = replace(_moved(job), run=job.name, runs=str(job.directory), resume=True, resume_changed=[])
    environment = {**os.environ, **lease.environment}
    return Spec(own, record, job.directory, environment, tuple(sys.path), lease.cores, records)


def _waited(process: JobProcess) -> int:
    """Return the exit code of a job's process."""
    stopped = True
    try:
        code = process.wait()
        stopped = False
    finally:
        if stopped:  # by a signal or an interrupt: the job saves and records that first
            _end(process)
        process.close()
    return code


def _moved(job: SweepJob) -> RunConfig:
    """Return a job's configuration; initial weights of a run made first are in the sweep's directory."""
    init, runs = job.config.init, job.config.runs
    if not isinstance(init, CheckpointInitConfig) or not Path(init.path).is_relative_to(runs):
        return job.config
    inside = Path(init.path).relative_to(runs)
    if not inside.parts or inside.parts[0] not in (job.config.before or {}):
        return job.config
    return replace(job.config, init=replace(init, path=str(job.directory / inside)))


def _end(process: JobProcess) -> None:
    process.let_go()
    process.wait()


def _settled(ledger: Ledger, running: JobRecord, spec: Spec, code: int) -> JobRecord:
    """Return the record that the job wrote at its end; write one if the job could not."""
    record = ledger.record(running.job)
    if record is not None and record.state is not State.running:
        return record
    ended = replace(record or running, seconds=running.seconds, ended=now())  # `record` has the pid
    failed = replace(ended, state=State.failed, exit_code=code, error=_reason(code))
    if not spec.failure.exists():
        write_failure(spec.failure, f"{failed.error}\n\nThe end of its output:\n{_tail(spec.output)}")
    ledger.commit(failed)
    return failed


def _refused(ledger: Ledger, record: JobRecord, error: NameplateError) -> JobRecord:
    failed = replace(record, state=State.failed, ended=now(), exit_code=Exit.REFUSED, error=str(error))
    home = ledger.home(record.job)
    home.mkdir(parents=True, exist_ok=True)
    write_failure(home / "failure.txt", str(error))
    ledger.commit(failed)
    return failed


def _has_failed(ledger: Ledger) -> bool:
    """Say whether a job has failed since the sweep was called."""
    began = os.environ.get(BEGAN, "")
    return any(record.state is State.failed and (record.ended or "") >= began for record in ledger.records())


def _reason(code: int) -> str:
    if code >= 0:
        return f"the job's process ended with exit code {code} before the job was done"
    name = signal.Signals(-code).name
    memory = " (the kernel does that when memory runs out; see dmesg)" if name == "SIGKILL" else ""
    return f"the job's process was killed by {name}{memory}"


def _tail(path: Path) -> str:
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-_SHOWN_LINES:])


def _say(line: str) -> None:
    Screen().say(line)


def job_of(config: RunConfig, overrides: Sequence[str]) -> SweepJob:
    """Return the job of a configuration whose `run` is the sweep, and of its command line."""
    usual = _usual(tuple(type(getattr(config, section.name)) for section in _sections()))
    own, others = parted(resolved_settings(config), usual=usual)
    # Interpolations stay as written: the ledger must not reveal this process's environment.
    written = {key: config.interpolated.get(key, value) for key, value in own.items()}
    return SweepJob(config, identity(own), tuple(overrides), written, others)


def resolved_settings(config: RunConfig) -> dict[str, Any]:
    """Return the settings that a result depends on, resolved; a group's option is under the group's name."""
    tree = dataclasses.asdict(config)
    del tree["interpolated"]
    settings = settings_of(tree, distinct=config.sweep.distinct)
    for group, schemas in SCHEMAS.items():
        if isinstance(schemas, dict):
            chosen = type(getattr(config, group))
            settings[group] = next((name for name, schema in schemas.items() if schema is chosen), chosen.__name__)
    return settings


def _sections() -> list[dataclasses.Field[Any]]:
    return [section for section in dataclasses.fields(RunConfig) if section.name in SCHEMAS]


@cache
def _usual(sections: tuple[type, ...]) -> Mapping[str, Any]:
    """Return the default of every setting for sections of these classes, except the options of groups and the seed."""
    names = (section.name for section in _sections())
    settings = resolved_settings(RunConfig(**{name: own() for name, own in zip(names, sections, strict=True)}))
    return {key: value for key, value in settings.items() if key != SEED and key not in SCHEMAS}
