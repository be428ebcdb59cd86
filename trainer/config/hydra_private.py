"""The undocumented parts of Hydra and OmegaConf that the application uses: hydra-core 1.3.8, omegaconf 2.3.1.

No other module reads an attribute of theirs that begins with an underscore, or imports `hydra._internal` or the parser
of overrides. tests/trainer/config/test_hydra_private.py has a table of every symbol and says which one has changed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig

# ---- overrides --------------------------------------------------------------------------------------------------


def parsed(override: str) -> Override:
    """Return an override of the command line as Hydra reads it.

    Raises:
        HydraException: it is not in Hydra's grammar.
    """
    return OverridesParser.create().parse_override(override)


def chooses(override: Override, groups: Collection[str]) -> bool:
    """Say whether an override chooses one option of a group, in the plainest way (`input_line`, `value`)."""
    return _key(override) in groups and isinstance(override.value(), str)


def sets_value(override: Override, groups: Collection[str]) -> bool:
    """Say whether an override changes the value of one key of ours, and nothing else."""
    key = _key(override)
    ours = _PLAIN.fullmatch(key) and key.partition(".")[0] != "hydra" and key not in groups
    return bool(ours) and not override.is_sweep_override()


def _key(override: Override) -> str:
    return str(override.input_line).partition("=")[0]


_PLAIN = re.compile(r"\w+(\.\w+)*")  # a key without the signs of Hydra's grammar that add, delete or move


def apply_values(overrides: Sequence[Override], node: DictConfig) -> None:
    """Set values in a composed node, as Hydra does after it has composed the options.

    Raises:
        HydraException: there is no such key, or it takes no such value.
    """
    ConfigLoaderImpl._apply_overrides_to_config(list(overrides), node)


def split_grid(overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of each job of a grid, in the order of Hydra's own sweeper."""
    batches = BasicSweeper.split_arguments(list(map(parsed, overrides)), None)
    return [list(job) for batch in batches for job in batch]


@contextmanager
def only_jobs(wanted: Collection[tuple[str, ...]]) -> Iterator[None]:
    """Make Hydra's own sweeper launch only these jobs of its grid, without composing each of them first as a test.

    A job is the tuple of its overrides. These two methods of BasicSweeper decide it.
    """
    split, validate = BasicSweeper.split_arguments, BasicSweeper.validate_batch_is_legal

    def chosen(overrides: list[Override], size: int | None) -> list[list[list[str]]]:
        batches = ([job for job in batch if tuple(job) in wanted] for batch in split(overrides, size))
        return [batch for batch in batches if batch]

    BasicSweeper.split_arguments = staticmethod(chosen)  # type: ignore[assignment, method-assign]
    BasicSweeper.validate_batch_is_legal = lambda self, batch: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        BasicSweeper.split_arguments = staticmethod(split)  # type: ignore[method-assign]
        BasicSweeper.validate_batch_is_legal = validate  # type: ignore[method-assign]


# ---- nodes of a configuration -----------------------------------------------------------------------------------


def child(node: DictConfig | ListConfig, key: Any) -> Any:
    """Return the node of a key, without resolving an interpolation (`_get_node`)."""
    return node._get_node(key)


def is_given(node: DictConfig | ListConfig) -> bool:
    """Say whether a section or list has content, and is neither null nor missing (`_is_none`, `_is_missing`)."""
    return not node._is_none() and not node._is_missing()


def declared_type(node: Any) -> Any:
    """Return the type that the schema of a value declares (`_metadata.ref_type`)."""
    return node._metadata.ref_type


def written(node: Any) -> Any:
    """Return a value as it is written, an interpolation unresolved (`_value`)."""
    return node._value()
