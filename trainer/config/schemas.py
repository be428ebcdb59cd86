"""The schema of every group's options: which dataclass checks the values of a file of options."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from nameplate.data.config import DATA_SCHEMAS
from nameplate.engine.config import OPTIMIZER_SCHEMAS, ObjectiveConfig, ScheduleConfig, StrategyConfig
from nameplate.naming.policy import Policy
from nameplate.training.config import INIT_SCHEMAS, CheckpointConfig, FitConfig, LogConfig
from trainer.config.run_config import RunConfig, SweepConfig
from trainer.models.config import MODEL_SCHEMAS

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


def run_schema() -> DictConfig:
    """Return RunConfig as a node whose sections are writable; each gets its type from the option that is chosen."""
    bases = {each.name: each.type for each in fields(RunConfig)}
    types = {name: schema if isinstance(schema, type) else base_of(schema) for name, schema in SCHEMAS.items()}
    assert types.keys() <= bases.keys()
    return writable(RunConfig(**{name: each() for name, each in types.items()}))


def writable(schema: Any) -> DictConfig:
    """Return a schema's node that options and overrides can be merged into."""
    node = OmegaConf.structured(schema)
    _lift_readonly(node)
    return node


def _lift_readonly(node: DictConfig | ListConfig) -> None:
    OmegaConf.set_readonly(node, False)
    if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
        for key in node:
            child = node._get_node(key)
            if isinstance(child, DictConfig | ListConfig):
                if OmegaConf.get_type(child) in (dict, None):
                    OmegaConf.set_struct(child, False)  # keys of the user's own, e.g. objective.losses={sum: huber}
                _lift_readonly(child)


def interpolated(node: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted key, text) of every value that is given as an interpolation."""
    keys: Any = node if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        child = node._get_node(key)
        if child._is_interpolation():
            yield f"{prefix}{key}", str(child._value())
        elif isinstance(child, DictConfig | ListConfig) and not child._is_none() and not child._is_missing():
            yield from interpolated(child, f"{prefix}{key}.")
