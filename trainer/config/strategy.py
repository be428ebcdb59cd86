"""On which devices a run computes."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from trainer.config.base import Section, above, at_least


class StrategyKind(enum.StrEnum):
    """How replicas are laid over devices."""

    # OmegaConf reads and writes the names of members, so these are the words of the command line.
    auto = "auto"  # every GPU; where there is none, CPU replicas
    mirrored = "mirrored"  # one replica a GPU
    cpu_replicas = "cpu_replicas"  # logical CPU devices, for trying and testing
    single = "single"  # one device, no replication
    multi_worker = "multi_worker"  # several processes, each with one replica a GPU, or on the CPU where it has none


@dataclass(frozen=True)
class StrategyConfig(Section):
    """The devices of a run and how they share its work."""

    kind: StrategyKind = StrategyKind.auto
    replicas: int | None = None  # how many, over all workers; None: every chosen GPU, or two on the CPU (one a worker)
    gpus: list[int] | None = None  # indices of the GPUs to use; None: all
    memory_growth: bool = True  # take GPU memory as it is needed, not all at once
    start_timeout: float = 300.0  # seconds that workers wait for each other before they give up
    sync_batch_norm: bool = True  # batch statistics over the global batch, not over each replica's share

    def problems(self) -> list[str]:
        """Return what cannot be meant; whether the devices exist is known only when the job starts."""
        found = at_least("strategy.replicas", self.replicas, 1)
        if self.gpus is not None and len(set(self.gpus)) != len(self.gpus):
            found.append(f"strategy.gpus: {self.gpus} names a device twice; name each once")
        if self.gpus is not None and not self.gpus:
            found.append("strategy.gpus: [] names no device; strategy=cpu_replicas trains without one")
        if self.gpus and self.kind in (StrategyKind.cpu_replicas, StrategyKind.single):
            found.append(f"strategy.gpus: {self.gpus} has no meaning under strategy={self.kind}; use mirrored")
        found += above("strategy.start_timeout", self.start_timeout, 0)
        several = self.kind is StrategyKind.multi_worker
        if self.gpus and self.replicas not in (None, len(self.gpus)) and not several:
            found.append(
                f"strategy.replicas: {self.replicas} replicas over {len(self.gpus)} GPUs {self.gpus}; "
                "there is one replica a GPU, so leave one of the two out"
            )
        if self.kind is StrategyKind.single and self.replicas not in (None, 1):
            found.append(
                f"strategy.replicas: {self.replicas} under strategy=single, which has one; "
                "strategy=cpu_replicas or strategy=mirrored have more"
            )
        return found
