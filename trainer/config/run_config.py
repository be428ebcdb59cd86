"""The whole configuration of a run: one frozen tree, and what its parts must agree on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from nameplate.data.config import DataConfig
from nameplate.engine.config import ObjectiveConfig, OptimizerConfig, ScheduleConfig, StrategyConfig, StrategyKind
from nameplate.naming.names import did_you_mean
from nameplate.naming.policy import Policy
from nameplate.section import ConfigError, Section
from nameplate.training.config import CheckpointConfig, FitConfig, InitConfig, LogConfig
from trainer.config.sweep_config import SweepConfig
from trainer.models.config import ModelConfig

RUN_NAME = re.compile(r"[\w.-][\w. -]{0,199}", re.UNICODE)


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run depends on."""

    strategy: StrategyConfig
    data: DataConfig
    model: ModelConfig
    naming: Policy
    init: InitConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    objective: ObjectiveConfig
    fit: FitConfig
    checkpoint: CheckpointConfig
    log: LogConfig
    sweep: SweepConfig = field(default_factory=SweepConfig)
    run: str | None = None  # name of the run's (or sweep's) directory; the same again resumes it; None: by time
    runs: str = "runs"  # directory of all runs
    seed: int = 0  # decides the first weights, the order of the data and every random layer
    resume: bool = True  # continue a run that has checkpoints; false: refuse to touch it
    resume_changed: list[str] = field(default_factory=list)  # keys or sections that may differ from the checkpoint's
    dry_run: bool = False  # build, check and take one step; leave nothing behind
    # Runs that are made first where they are not done, NAME: [overrides]; at the end their best values are compared.
    before: dict[str, list[str]] | None = field(default_factory=dict)
    trust: list[str] = field(default_factory=list)  # packages whose callables `_target_` may name
    # Filled in, and no key: the keys that were given as ${...}, stored as written.
    interpolated: dict[str, str] = field(default_factory=dict, metadata={"omegaconf_ignore": True})

    def check(self) -> RunConfig:
        """Return the configuration itself, or raise `ConfigError` with every problem in it."""
        found = list(self.problems())
        if found:
            raise ConfigError(found)
        return self

    def problems(self) -> Iterator[str]:
        """Yield every problem of every section, and of the sections together."""
        for each in fields(self):
            section = getattr(self, each.name)
            if isinstance(section, Section) or hasattr(section, "problems"):
                yield from section.problems()
        if self.run is not None and not RUN_NAME.fullmatch(self.run):
            yield f"run: {self.run!r} cannot name a directory; use letters, digits, '.', '_', '-' and spaces"
        if not 0 <= self.seed < 2**31:
            yield f"seed: {self.seed} is out of range; 0 to {2**31 - 1}"
        known = set(dotted(self))
        for key in self.resume_changed:
            if key not in known:
                yield f"resume_changed: no key or section {key!r}.{did_you_mean(key, known)}"
        yield from self._before_problems()
        yield from self._batch_problems()

    def _before_problems(self) -> Iterator[str]:
        for name, overrides in (self.before or {}).items():
            given = [each for each in overrides if each.lstrip("+").startswith(("trust=", "hydra.", "run=", "-"))]
            if given:
                yield f"before.{name}: {', '.join(given)} is for the command line to say, and not for a run before it"
            if not RUN_NAME.fullmatch(name) or name == self.run:
                other = "is this run itself" if name == self.run else "cannot name a directory"
                yield f"before.{name}: {name!r} {other}; choose another name"
        if self.before and self.strategy.kind is StrategyKind.multi_worker:
            made = ", ".join(self.before)
            yield f"before: each of several workers would make {made}; make them by themselves, then before=null"

    def _batch_problems(self) -> Iterator[str]:
        replicas = self.strategy.replicas or len(self.strategy.gpus or ())
        if not replicas and self.strategy.kind is StrategyKind.cpu_replicas:
            replicas = 2
        if replicas:
            yield from batch_problems(self.fit, replicas)


def dotted(section: Any, prefix: str = "") -> Iterator[str]:
    """Yield every key of a configuration, sections and values both, joined with dots."""
    for each in fields(section):
        if each.metadata.get("omegaconf_ignore"):
            continue
        yield f"{prefix}{each.name}"
        value = getattr(section, each.name)
        if is_dataclass(value):
            yield from dotted(value, f"{prefix}{each.name}.")


def batch_problems(fit: FitConfig, replicas: int) -> list[str]:
    """Return the batches that `replicas` equal shares do not make up, with the nearest that do."""
    found = []
    for key in ("global_batch", "validation_batch"):
        batch = getattr(fit, key)
        if batch and batch % replicas:
            below, over = batch // replicas * replicas, -(-batch // replicas) * replicas
            near = f"{below} or {over}" if below else f"{over}"
            found.append(f"fit.{key}: {batch} examples do not divide among {replicas} replicas; the nearest: {near}")
    return found
