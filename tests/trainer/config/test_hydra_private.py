"""Each undocumented symbol of Hydra and OmegaConf that is used, as in hydra-core 1.3.8 and omegaconf 2.3.1."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
import omegaconf
import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import AnyNode, DictConfig, ListConfig, OmegaConf

from tests.private_names import private_imports, private_names
from trainer.config import hydra_private
from trainer.config.hydra_private import child, declared_type, is_given, only_jobs, parsed, split_grid, written

MODULE = Path(inspect.getfile(hydra_private))
_GET_NODE = "self key validate_access validate_key throw_on_missing_value throw_on_missing_key"

# Where each symbol is, its name, and the names of its parameters.
CALLABLES: list[tuple[Any, str, str]] = [
    (OverridesParser, "create", "config_loader"),
    (OverridesParser, "parse_override", "self s"),
    (Override, "is_sweep_override", "self"),
    (Override, "sweep_string_iterator", "self"),
    (Override, "value", "self"),
    (ConfigLoaderImpl, "_apply_overrides_to_config", "overrides cfg"),
    (BasicSweeper, "split_arguments", "overrides max_batch_size"),
    (BasicSweeper, "validate_batch_is_legal", "self batch"),
    *[
        (kind, name, parameters)
        for kind in (DictConfig, ListConfig)
        for name, parameters in (("_get_node", _GET_NODE), ("_is_none", "self"), ("_is_missing", "self"))
    ],
    *[(kind, "_value", "self") for kind in (AnyNode, DictConfig, ListConfig)],
]
ATTRIBUTES = {"_metadata"}


@pytest.mark.parametrize(
    ("owner", "name", "parameters"), CALLABLES, ids=[f"{owner.__name__}.{name}" for owner, name, _ in CALLABLES]
)
def test_a_function_that_is_called_or_replaced_has_its_parameters(owner: Any, name: str, parameters: str) -> None:
    symbol = (
        f"{owner.__name__}.{name} of hydra-core {hydra.__version__} and omegaconf {omegaconf.__version__} "
        "(used in trainer/config/hydra_private.py)"
    )
    assert hasattr(owner, name), f"there is no {symbol}"
    actual = " ".join(inspect.signature(getattr(owner, name)).parameters)
    assert actual == parameters, f"{symbol} takes {actual}"


def test_the_table_has_all_that_the_module_uses() -> None:
    assert set(private_names(MODULE)) == {name for _, name, _ in CALLABLES if name.startswith("_")} | ATTRIBUTES


def test_no_other_module_of_the_application_uses_what_is_private() -> None:
    own = MODULE.parents[1]
    outside = [path for path in own.rglob("*.py") if path != MODULE and not path.is_relative_to(own / "models")]
    strays = [(path.name, name) for path in outside for name in (*private_names(path), *private_imports(path))]
    assert not strays, "these belong in trainer/config/hydra_private.py"


@dataclass
class Section:
    rate: float = 0.5
    copied: Any = "${rate}"
    absent: Any = None
    words: list[str] = field(default_factory=list)


def test_nodes_are_read_as_they_are_declared_and_written() -> None:
    node = OmegaConf.structured({"section": Section()})
    section = child(node, "section")
    assert is_given(section)
    assert not is_given(child(OmegaConf.structured({"section": None}), "section"))
    assert declared_type(child(section, "rate")) is float
    assert written(child(section, "copied")) == "${rate}"
    assert is_given(child(section, "words"))


def test_hydras_own_sweeper_launches_only_the_jobs_that_are_wanted() -> None:
    grid = ["a=1,2", "b=x"]
    assert split_grid(grid) == [["a=1", "b=x"], ["a=2", "b=x"]]
    with only_jobs({("a=2", "b=x")}):
        assert split_grid(grid) == [["a=2", "b=x"]]
    assert len(split_grid(grid)) == 2
    assert parsed("a=1,2").is_sweep_override()
