"""The schemas of a configuration as OmegaConf's nodes.

The schemas are frozen dataclasses. OmegaConf makes a read-only node of a frozen dataclass, so the flag is lifted on
the stored schema, and `to_object` still gives frozen instances (hydra-core 1.3.8 with omegaconf 2.3.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from trainer.command_line.schemas import SCHEMAS, base_of
from trainer.config.run import RunConfig


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
