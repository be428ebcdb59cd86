"""The whole configuration of a run: one frozen tree, with the checks that span its sections."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import PurePath
from typing import Any

from nameplate.arguments import CheckedFields
from nameplate.checkpoint import remote
from nameplate.data.config import DataConfig
from nameplate.data.specs import is_layer
from nameplate.engine.config import Decay, OptimizerConfig, ScheduleConfig, StrategyConfig, StrategyKind
from nameplate.engine.objective_config import ObjectiveConfig
from nameplate.naming.keras_objects import AUGMENTATIONS, CALLBACK_PATHS, CALLBACKS, Kind, arguments_of
from nameplate.naming.names import did_you_mean
from nameplate.naming.policy import Policy
from nameplate.section import ConfigError, Section, at_least
from nameplate.training.config import CheckpointConfig, FitConfig, InitConfig, LogConfig
from trainer.models.config import ModelConfig

RUN_NAME = re.compile(r"[\w.-][\w. -]{0,199}", re.UNICODE)


class SweepMode(enum.StrEnum):
    """How a job's process starts."""

    # OmegaConf reads and writes the names of members, so these are the words of the command line.
    process = "process"  # a fresh interpreter
    warm = "warm"  # a fork of one that has imported TensorFlow and computed nothing: faster for small jobs


class PruneRule(enum.StrEnum):
    """When a job is stopped early because others did better at the same epoch."""

    median = "median"  # its best value so far is worse than the median of the others'
    halving = "halving"  # at epochs after_epochs * factor**k it is not among the best 1/factor


@dataclass(frozen=True)
class PruneConfig(Section):
    """The early stopping of jobs, by the monitored value at the end of each epoch."""

    rule: PruneRule | None = None  # None: every job trains to the end
    after_epochs: int = 1  # epochs that every job gets
    after_jobs: int = 4  # other jobs that must have come as far before one is stopped
    factor: int = 3  # of `halving`

    def problems(self) -> list[str]:
        """Return counts that are too small."""
        return [
            *at_least("sweep.prune.after_epochs", self.after_epochs, 1, unit="epoch"),
            *at_least("sweep.prune.after_jobs", self.after_jobs, 1, unit="job"),
            *at_least("sweep.prune.factor", self.factor, 2),
        ]


@dataclass(frozen=True)
class SweepConfig(Section):
    """How `python -m trainer -m` runs its jobs, each in a process of its own; no result depends on it."""

    mode: SweepMode = SweepMode.process  # how a job's process starts
    fail_fast: bool = False  # start no other job once one has failed; running ones finish
    gpus_per_job: int | None = None  # GPUs that a job has to itself; None: as many as its strategy uses
    cpus_per_job: int | None = None  # cores that a job has to itself; None: all jobs share all of them
    distinct: list[str] = field(default_factory=list)  # keys that make jobs different, though no result depends on them
    prune: PruneConfig = field(default_factory=PruneConfig)  # early stopping of jobs

    def problems(self) -> list[str]:
        """Return counts that are too small."""
        return [
            *at_least("sweep.gpus_per_job", self.gpus_per_job, 1, unit="GPU"),
            *at_least("sweep.cpus_per_job", self.cpus_per_job, 1, unit="core"),
            *self.prune.problems(),
        ]


@dataclass(frozen=True)
class RunConfig(CheckedFields):
    """Everything that a run depends on."""

    strategy: StrategyConfig  # devices
    data: DataConfig  # examples
    model: ModelConfig  # architecture
    naming: Policy  # what layers may be named
    init: InitConfig  # initial weights
    optimizer: OptimizerConfig  # how weights are updated
    schedule: ScheduleConfig  # of the learning rate
    objective: ObjectiveConfig  # losses and metrics
    fit: FitConfig  # steps, batches, precision
    checkpoint: CheckpointConfig  # when to save, what to keep
    log: LogConfig  # TensorBoard, pictures, profiles
    sweep: SweepConfig = field(default_factory=SweepConfig)  # how the jobs of a sweep run
    run: str | None = None  # name of the run's (or sweep's) directory; the same name resumes it; None: by time
    runs: str = "runs"  # directory of all runs, or an address in a store: s3://bucket/runs, gs://, az://
    seed: int = 0  # decides the initial weights, the order of the data and every random layer
    resume: bool = True  # resume a run that has checkpoints; false: refuse to touch it
    resume_changed: list[str] = field(default_factory=list)  # keys or sections that may differ from the checkpoint's
    dry_run: bool = False  # build, check and take one step; leave nothing behind
    # NAME: {_target_: CLASS, its arguments}, in the order in which they are called; null: none of this name.
    callbacks: dict[str, Any] = field(default_factory=dict)
    # Runs to make first unless they are done, NAME: [overrides]; at the end their best values are compared.
    before: dict[str, list[str]] | None = field(default_factory=dict)
    trust: list[str] = field(default_factory=list)  # packages whose callables `_target_` may name
    # Not a key, but filled in: the keys that were given as ${...}, with the text as it was written.
    interpolated: dict[str, str] = field(default_factory=dict, metadata={"omegaconf_ignore": True})

    def check(self) -> RunConfig:
        """Return the configuration itself, or raise `ConfigError` with every problem in it."""
        if problems := list(self.problems()):
            raise ConfigError(problems)
        return self

    def problems(self) -> Iterator[str]:
        """Yield every problem of every section, and of the sections together."""
        for own in fields(self):
            section = getattr(self, own.name)
            if hasattr(section, "problems"):
                yield from section.problems()
        if self.run is not None and not RUN_NAME.fullmatch(self.run):
            yield f"run: {self.run!r} cannot name a directory; use letters, digits, '.', '_', '-' and spaces"
        if fault := remote.problem(self.runs):
            yield f"runs: {fault}"
        elif remote.url_of(self.runs) and self.before:
            yield "before: runs in a store have no runs before them; train them first, then init.path=NAME"
        if not 0 <= self.seed < 2**31:
            yield f"seed: {self.seed} is out of range; 0 to {2**31 - 1}"
        known = set(dotted(self))
        for key in self.resume_changed:
            if key not in known and not any(key.startswith(f"{free}.") for free in free_keys(self)):
                yield f"resume_changed: no key or section {key!r}.{did_you_mean(key, known)}"
        yield from self._callback_problems()
        yield from self._before_problems()

    def named_objects(self) -> Iterator[tuple[Kind, str, Any]]:
        """Yield (kind, key, value) of every object that the configuration names: losses, metrics, an optimizer, ..."""
        for section in (self.objective, self.optimizer, self.schedule):
            yield from section.named_objects()
        for name, value in self.callbacks.items():
            if value is not None:
                yield CALLBACKS, f"callbacks.{name}", value
        for place, item in enumerate(self.data.augment):
            if is_layer(item):
                yield AUGMENTATIONS, f"data.augment[{place}]", item

    def _callback_problems(self) -> Iterator[str]:
        several = self.strategy.kind is StrategyKind.multi_worker
        for name, value in self.callbacks.items():
            key, own = f"callbacks.{name}", CALLBACKS.keras_class(value)
            if not name.isidentifier():
                yield f"{key}: {name!r} cannot name a callback; use letters, digits and '_'"
            if value is not None:
                yield from CALLBACKS.problems(key, value, trust="keras" in self.trust)
            if own == "ReduceLROnPlateau" and (self.schedule.decay is not Decay.constant or self.schedule.warmup_steps):
                yield f"{key}: {own} sets the learning rate, and so does the schedule; add schedule=constant"
            if own in CALLBACK_PATHS:
                path = PurePath(str(arguments_of(value).get(CALLBACK_PATHS[own], "")))
                if path.is_absolute() or ".." in path.parts:
                    argument = f"{key}.{CALLBACK_PATHS[own]}"
                    yield f"{argument}: {str(path)!r} is not inside the run's directory, where {own} writes"
                if several:
                    yield f"{key}: every worker would write the same files; {own} is for strategies of one process"

    def _before_problems(self) -> Iterator[str]:
        for name, overrides in (self.before or {}).items():
            refused = [text for text in overrides if text.lstrip("+").startswith(("trust=", "hydra.", "run=", "-"))]
            if refused:
                yield f"before.{name}: {', '.join(refused)} is only for the command line, not for a run before this one"
            if not RUN_NAME.fullmatch(name) or name == self.run:
                other = "is this run itself" if name == self.run else "cannot name a directory"
                yield f"before.{name}: {name!r} {other}; choose another name"
        if self.before and self.strategy.kind is StrategyKind.multi_worker:
            made = ", ".join(self.before)
            yield f"before: every worker would make {made}; make them first with one process, then before=null"


def free_keys(section: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of values that have keys of their own, such as an object with arguments."""
    for own in fields(section):
        value = getattr(section, own.name)
        if isinstance(value, dict):
            yield f"{prefix}{own.name}"
        elif is_dataclass(value):
            yield from free_keys(value, f"{prefix}{own.name}.")


def dotted(section: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of a configuration, of sections and of values."""
    for own in fields(section):
        if own.metadata.get("omegaconf_ignore"):
            continue
        yield f"{prefix}{own.name}"
        value = getattr(section, own.name)
        if is_dataclass(value):
            yield from dotted(value, f"{prefix}{own.name}.")
