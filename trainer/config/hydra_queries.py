"""Hydra asked: what it can choose from, where it searches, and what it says when it refuses, in words."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError  # type: ignore[import-untyped]  # OmegaConf's own parser; it ships no types

from nameplate.section import ConfigError
from trainer.config.overrides import explain, key_of, sweeps
from trainer.config.schemas import keys_of, lacks_schema_of
from trainer.config.search_path import FILE, file_problem, merged, options_in, root_of

CONF = Path(__file__).resolve().parents[1] / "conf"

SEARCH, _CONFIG_DIR = "hydra.searchpath", ("--config-dir", "-cd")

_RESOLVING = " raised while resolving interpolation: "  # in OmegaConf's words, before those that count

_SPELT = {"init.from": "init.from_"}  # a word of Python's own cannot be a field's name


def options(arguments: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return the options of every group: those of conf/, and of the places that a command line adds."""
    return merged([options_in(CONF), *(options_in(root_of(each)) for each in places_of(arguments))])


def search_of(arguments: Sequence[str]) -> list[str]:
    """Return the override that searches what a command line adds to conf/; none where it adds nothing."""
    found = places_of(arguments)
    return [f"{SEARCH}={_quoted_list(found)}"] if found else []


def places_of(arguments: Sequence[str]) -> list[str]:
    """Return what a command line has searched for options beside conf/, as Hydra writes it.

    Raises:
        ConfigError: `hydra.searchpath` is no list.
    """
    found: list[str] = []
    for each, last in zip(arguments, ["", *arguments], strict=False):
        option, _, directory = each.partition("=")
        if last in _CONFIG_DIR or (option in _CONFIG_DIR and directory):
            found.append(f"{FILE}{os.path.abspath(each if last in _CONFIG_DIR else directory)}")
        elif "=" in each and key_of(each) == SEARCH:
            value: Any = OverridesParser.create().parse_override(each).value()
            if not isinstance(value, list):
                raise ConfigError([f"{SEARCH}: {value} is no list; write {SEARCH}=[{value}]"])
            found += [str(getattr(place, "text", place)) for place in value]
    return found


def explained(error: Exception, overrides: Sequence[str]) -> ConfigError:
    """Return what Hydra says as the problems of a command line, each with what was probably meant."""

    def attempt(some: Sequence[str]) -> tuple[DictConfig | None, str]:
        return tried([*search, *([first_of_sweep(each) for each in some] if sweeps(overrides) else some)])

    search = search_of(overrides)
    others = [each for each in overrides if key_of(each) != SEARCH]
    return ConfigError(explain(others, options(overrides), attempt) or [first_line(error, overrides)])


def tried(overrides: Sequence[str], **asked: bool) -> tuple[DictConfig | None, str]:
    """Compose with these overrides alone: the node, or None and what Hydra says."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="nameplate"):
        try:
            return compose("train", overrides=list(overrides), **asked), ""
        except (HydraException, OmegaConfBaseException, YAMLError) as error:
            return None, first_line(error.__cause__ or error, overrides)


def first_of_sweep(override: str) -> str:
    """Return an override with the first of its values, or as it is where it has one."""
    try:
        parsed = OverridesParser.create().parse_override(override)
        if not parsed.is_sweep_override():
            return override
        return f"{override.partition('=')[0]}={next(iter(parsed.sweep_string_iterator()))}"
    except HydraException:
        return override


def first_line(error: BaseException, arguments: Sequence[str] = ()) -> str:
    """Return what Hydra, OmegaConf or the reader of YAML says in one line, with the file or the key that it means."""
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        return f"{error.problem_mark.name}, line {error.problem_mark.line + 1}: no YAML: {error.problem}"
    lines: list[str] = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines[:1] = [each.partition(_RESOLVING)[2].strip("\"'") or each for each in lines[:1]]
    key = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key:")), "")
    in_file = file_problem(key, lines, options=options(arguments), keys_of=keys_of, lacks_schema=lacks_schema_of)
    if in_file:
        return in_file
    return f"{key}: {lines[0]}" if key and lines else (lines[0] if lines else type(error).__name__)


def readable(overrides: Sequence[str]) -> list[str]:
    """Return the overrides with quotes around values that Hydra's grammar cannot read bare, e.g. `run=zürich`."""
    parser = OverridesParser.create()

    def reads(override: str) -> bool:
        try:
            parser.parse_override(override)
        except HydraException:
            return False
        return True

    found = []
    for override in overrides:
        if key_of(override) in _SPELT:
            override = override.replace(key_of(override), _SPELT[key_of(override)], 1)
        key, equals, value = override.partition("=")
        quoted = f"{key}='{value}'"
        if value.startswith("[") and value.endswith("]"):
            quoted = f"{key}={_quoted_list(value[1:-1].split(','))}"
        needed = equals and not override.startswith("-") and not reads(override) and reads(quoted)
        found.append(quoted if needed else override)
    return found


def _quoted_list(values: Sequence[str]) -> str:
    return "[" + ",".join(f"'{each}'" for each in values) + "]"
