"""How the jobs of a sweep are run; nothing of it changes what a job computes."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from nameplate.section import Section, at_least


class SweepMode(enum.StrEnum):
    """What a job's process begins as."""

    # OmegaConf reads and writes the names of members, so these are the words of the command line.
    process = "process"  # a fresh interpreter
    warm = "warm"  # a fork of one that has imported TensorFlow and run nothing: much faster for small jobs


class PruneRule(enum.StrEnum):
    """When a job is given up because others did better at the same epoch."""

    median = "median"  # its best value so far is worse than the median of theirs
    halving = "halving"  # at epochs after_epochs * factor**k it is not among the best 1/factor


@dataclass(frozen=True)
class PruneConfig(Section):
    """Jobs that are given up early, by the value that decides what is best, as it is measured each epoch."""

    rule: PruneRule | None = None  # None: every job trains to its end
    after_epochs: int = 1  # epochs that every job gets
    after_jobs: int = 4  # other jobs that must have come as far before one is given up
    factor: int = 3  # of the halving

    def problems(self) -> list[str]:
        """Return counts that cannot be meant."""
        return [
            *at_least("sweep.prune.after_epochs", self.after_epochs, 1, unit="epoch"),
            *at_least("sweep.prune.after_jobs", self.after_jobs, 1, unit="job"),
            *at_least("sweep.prune.factor", self.factor, 2),
        ]


@dataclass(frozen=True)
class SweepConfig(Section):
    """The jobs of `python -m trainer -m`: each in a process of its own."""

    mode: SweepMode = SweepMode.process
    fail_fast: bool = False  # begin no other job once one has failed; those that run come to their end
    gpus_per_job: int | None = None  # GPUs that a job has to itself; None: as many as its strategy takes
    cpus_per_job: int | None = None  # cores that a job has to itself; None: all jobs share all of them
    distinct: list[str] = field(default_factory=list)  # keys that tell jobs apart though they change no result
    prune: PruneConfig = field(default_factory=PruneConfig)

    def problems(self) -> list[str]:
        """Return counts that cannot be meant."""
        return [
            *at_least("sweep.gpus_per_job", self.gpus_per_job, 1, unit="GPU"),
            *at_least("sweep.cpus_per_job", self.cpus_per_job, 1, unit="core"),
            *self.prune.problems(),
        ]
