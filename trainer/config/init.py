"""Where the first weights come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from trainer.config.base import Section


@dataclass(frozen=True)
class InitConfig(Section):
    """Random weights from the run's seed."""


@dataclass(frozen=True)
class CheckpointInitConfig(InitConfig):
    """Weights of a checkpoint, each to the variable of its own name."""

    path: str = "???"  # a run, its checkpoints directory, or one checkpoint
    only: list[str] = field(default_factory=list)  # patterns of variable names; empty: all, and none may be left over

    def problems(self) -> list[str]:
        """Return a path that leads nowhere."""
        if Path(self.path).exists():
            return []
        return [f"init.path: nothing at {self.path!r}; give a run, e.g. init.path=runs/digits"]


INIT_SCHEMAS: dict[str, type[InitConfig]] = {"scratch": InitConfig, "checkpoint": CheckpointInitConfig}
