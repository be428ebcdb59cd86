"""The schema of every group's options: which dataclass checks the values of a file of options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from models.policy import Policy
from trainer.config.checkpoint import CheckpointConfig
from trainer.config.data import DATA_SCHEMAS
from trainer.config.fit import FitConfig
from trainer.config.init import INIT_SCHEMAS
from trainer.config.log import LogConfig
from trainer.config.model import MODEL_SCHEMAS
from trainer.config.objective import ObjectiveConfig
from trainer.config.optimizer import OPTIMIZER_SCHEMAS, ScheduleConfig
from trainer.config.run import RunConfig
from trainer.config.strategy import StrategyConfig
from trainer.config.sweep import SweepConfig

SCHEMAS: dict[str, type | dict[str, Any]] = {
    "strategy": StrategyConfig,
    "naming": Policy,
    "schedule": ScheduleConfig,
    "objective": ObjectiveConfig,
    "fit": FitConfig,
    "checkpoint": CheckpointConfig,
    "log": LogConfig,
    "sweep": SweepConfig,
    "data": DATA_SCHEMAS,
    "model": MODEL_SCHEMAS,
    "init": INIT_SCHEMAS,
    "optimizer": OPTIMIZER_SCHEMAS,
}


def classes_of(schemas: Any) -> Sequence[Any]:
    """Return the dataclasses of a group: one, or one an option."""
    return list(schemas.values()) if isinstance(schemas, dict) else [schemas]


def base_of(schemas: dict[str, Any]) -> Any:
    """Return the class that the options of a group have in common."""
    first = next(iter(schemas.values()))
    return next(each for each in reversed(first.__mro__) if is_dataclass(each))


def keys_of(name: str) -> set[str]:
    """Return the fields of the configuration's dataclass of this name."""
    every = [RunConfig, *(each for schemas in SCHEMAS.values() for each in classes_of(schemas))]
    inner = [
        type(getattr(each(), one.name))
        for each in every[1:]
        for one in fields(each)
        if is_dataclass(getattr(each(), one.name))
    ]
    return {one.name for each in (*every, *inner) if each.__name__ == name for one in fields(each)}


def lacks_schema(group: str) -> str:
    """Return in words what a file of the group lacks where nothing checks its values."""
    schemas = SCHEMAS[group]
    names = " or ".join(f"schema_{each}" for each in schemas) if isinstance(schemas, dict) else "schema"
    return (
        "the file of its option has no schema in its defaults, so its values are unchecked; it begins with  "
        f"defaults: [{names}, _self_]"
    )


def lacks_schema_of(name: str) -> str:
    """Return what a file lacks whose values met the class that all options of a group have in common."""
    groups = {base_of(each).__name__: group for group, each in SCHEMAS.items() if isinstance(each, dict)}
    return f" {lacks_schema(groups[name]).capitalize()}" if name in groups else ""
