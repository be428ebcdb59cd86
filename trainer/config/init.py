"""Where the first weights come from."""

from __future__ import annotations

from dataclasses import dataclass, field

from models import mapping
from models.errors import NameplateError
from trainer.config.base import Section


@dataclass(frozen=True)
class InitConfig(Section):
    """Random weights from the run's seed."""


@dataclass(frozen=True)
class CheckpointInitConfig(InitConfig):
    """Weights of a checkpoint or file, each to the variable of its own name; what is left over is refused.

    A pattern is a variable (`head/kernel`), a layer or container with all below it (`head`), or a shell pattern over
    the whole name (`*/bias`). Each leniency names what it is for; one that is for nothing is an error.
    """

    # A run (its best checkpoint, or the newest), one checkpoint, a pointer, a .safetensors or a .keras file.
    path: str = field(default="???", metadata={"example": "init.path=runs/digits"})
    only: list[str] = field(default_factory=list)  # patterns of variables here; the others keep what the seed gives
    rename: list[str] = field(default_factory=list)  # rules OLD=NEW, OLD= to drop, re:PATTERN=REPLACEMENT
    allow_missing: list[str] = field(default_factory=list)  # patterns of variables here that the source need not have
    allow_unexpected: list[str] = field(default_factory=list)  # patterns of names there that nothing here takes
    allow_shape: list[str] = field(default_factory=list)  # patterns of variables here that may differ in shape: kept
    allow_dtype: list[str] = field(default_factory=list)  # patterns of variables here whose value may be cast
    optimizer: bool = False  # the optimizer's slots too, and its count of steps; the schedule goes on from there

    def problems(self) -> list[str]:
        """Return rules that cannot be read; what is at the path is looked at when a run begins, not when it resumes."""
        try:
            mapping.parse(self.rename)
        except NameplateError as error:
            return [f"init.rename: {error}"]
        return []


INIT_SCHEMAS: dict[str, type[InitConfig]] = {"scratch": InitConfig, "checkpoint": CheckpointInitConfig}
