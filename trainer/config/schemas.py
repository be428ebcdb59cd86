"""The schemas of all groups: the dataclass that checks the values of each option, and what it says of each."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from nameplate.data.config import DATA_SCHEMAS
from nameplate.engine.config import OPTIMIZER_SCHEMAS, ScheduleConfig, StrategyConfig
from nameplate.engine.objective_config import ObjectiveConfig
from nameplate.naming.policy import Policy
from nameplate.training.config import INIT_SCHEMAS, CheckpointConfig, FitConfig, LogConfig
from trainer.config.hydra_private import child, is_given, written
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
    """Return the dataclasses of a group: one for all options, or one each."""
    return list(schemas.values()) if isinstance(schemas, dict) else [schemas]


def base_of(schemas: dict[str, Any]) -> Any:
    """Return the common base class of a group's options."""
    first = next(iter(schemas.values()))
    return next(base for base in reversed(first.__mro__) if is_dataclass(base))


def keys_of(name: str) -> set[str]:
    """Return the fields of the configuration's dataclass of this name."""
    sections = [schema for schemas in SCHEMAS.values() for schema in classes_of(schemas)]
    values = [getattr(section(), own.name) for section in sections for own in fields(section)]
    inner = [type(value) for value in values if is_dataclass(value)]
    return {own.name for schema in (RunConfig, *sections, *inner) if schema.__name__ == name for own in fields(schema)}


def lacks_schema(group: str) -> str:
    """Return what to add to a file of the group whose values no schema checks."""
    schemas = SCHEMAS[group]
    names = " or ".join(f"schema_{option}" for option in schemas) if isinstance(schemas, dict) else "schema"
    return (
        "the file of its option has no schema in its defaults, so its values are unchecked; it begins with  "
        f"defaults: [{names}, _self_]"
    )


def lacks_schema_of(name: str) -> str:
    """Return `lacks_schema` of the group whose common base class has this name; nothing for other classes."""
    groups = {base_of(own).__name__: group for group, own in SCHEMAS.items() if isinstance(own, dict)}
    return f" {lacks_schema(groups[name]).capitalize()}" if name in groups else ""


def run_schema() -> DictConfig:
    """Return RunConfig as a node with writable sections; the chosen option decides the type of each."""
    types = {name: schema if isinstance(schema, type) else base_of(schema) for name, schema in SCHEMAS.items()}
    return writable(RunConfig(**{name: section() for name, section in types.items()}))


def writable(schema: Any) -> DictConfig:
    """Return a schema as a node that options and overrides can be merged into."""
    node = OmegaConf.structured(schema)
    _lift_readonly(node)
    return node


def _lift_readonly(node: DictConfig | ListConfig) -> None:
    OmegaConf.set_readonly(node, False)
    if isinstance(node, DictConfig) and is_given(node):
        for key in node:
            inner = child(node, key)
            if isinstance(inner, DictConfig | ListConfig):
                if OmegaConf.get_type(inner) in (dict, None):
                    OmegaConf.set_struct(inner, False)  # any keys, e.g. objective.losses={sum: huber}
                _lift_readonly(inner)


def interpolated(node: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted key, text) of every value that is given as an interpolation."""
    keys: Any = node if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        inner = child(node, key)
        if OmegaConf.is_interpolation(node, key):
            yield f"{prefix}{key}", str(written(inner))
        elif isinstance(inner, DictConfig | ListConfig) and is_given(inner):
            yield from interpolated(inner, f"{prefix}{key}.")


_NONE = re.compile(r"\bNone\b")  # in Python; null on the command line


@cache
def comments_of(schema: type, *, above: bool = True) -> dict[str, str]:
    """Return the comment of each field of a dataclass, or member of an enumeration, its own and its bases'.

    A comment stands behind the field, or in the lines above it.
    """
    comments: dict[str, str] = {}
    for base in reversed(schema.__mro__):
        if base.__module__.split(".")[0] not in ("nameplate", "trainer"):
            continue
        lines = Path(inspect.getfile(base)).read_text("utf-8").splitlines()
        for node in _body_of(base, "\n".join(lines)):
            name = _assigned(node)
            text = lines[(node.end_lineno or node.lineno) - 1].partition("  # ")[2].strip()
            text = text or (_above(lines, node.lineno - 1) if above else "")
            if name and text:
                comments[name] = _NONE.sub("null", text)
    return comments


def _body_of(schema: type, source: str) -> list[ast.stmt]:
    found = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == schema.__name__]
    return found[0].body if found else []


def _assigned(node: ast.stmt) -> str:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return targets[0].id if isinstance(targets[0], ast.Name) else ""


def _above(lines: Sequence[str], place: int) -> str:
    comment: list[str] = []
    while place and lines[place - 1].strip().startswith("#"):
        place -= 1
        comment.insert(0, lines[place].strip("# "))
    return " ".join(comment)
