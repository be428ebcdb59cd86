"""Questions to Hydra: the options it can choose from, where it searches, and what its errors mean."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError  # type: ignore[import-untyped]  # OmegaConf's own parser; it ships no types

from nameplate.errors import FileFormatError
from nameplate.formats.policy_file import is_policy_file, policy_settings, read_policy
from nameplate.section import ConfigError
from trainer.config.hydra_private import apply_values, chooses, parsed, sets_value
from trainer.config.overrides import explain, in_words, key_of, spelt, sweeps
from trainer.config.schemas import keys_of, lacks_schema_of
from trainer.config.search_path import FILE, file_problem, merged, options_in, root_of

CONF = Path(__file__).resolve().parents[1] / "conf"

SEARCH, _CONFIG_DIR = "hydra.searchpath", ("--config-dir", "-cd")

_RESOLVING = " raised while resolving interpolation: "  # in OmegaConf's messages, before the part that counts

_SPELT = {"init.from": "init.from_"}  # a keyword of Python cannot be a field's name
WRITTEN = {field: key for key, field in _SPELT.items()}


def options(arguments: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return the options of every group, in conf/ and in the places that a command line adds."""
    return merged([options_in(CONF), *(options_in(root_of(place)) for place in places_of(arguments))])


def search_of(arguments: Sequence[str]) -> list[str]:
    """Return the override that searches the places that a command line adds to conf/; none if it adds nothing."""
    places = places_of(arguments)
    return [f"{SEARCH}={_quoted_list(places)}"] if places else []


def places_of(arguments: Sequence[str]) -> list[str]:
    """Return the places with options that a command line adds to conf/, as Hydra writes them.

    Raises:
        ConfigError: `hydra.searchpath` is not a list.
    """
    places: list[str] = []
    for word, before in zip(arguments, ["", *arguments], strict=False):
        option, _, directory = word.partition("=")
        if before in _CONFIG_DIR or (option in _CONFIG_DIR and directory):
            places.append(f"{FILE}{os.path.abspath(word if before in _CONFIG_DIR else directory)}")
        elif "=" in word and key_of(word) == SEARCH:
            value: Any = parsed(word).value()
            if not isinstance(value, list):
                raise ConfigError([f"{SEARCH}: {value} is not a list; write {SEARCH}=[{value}]"])
            places += [str(getattr(place, "text", place)) for place in value]
    return places


def composed(overrides: Sequence[str], **given: bool) -> DictConfig:
    """Compose these overrides.

    Raises:
        HydraException, OmegaConfBaseException, YAMLError: what Hydra finds wrong.
    """
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="nameplate"):
        return compose("train", overrides=list(overrides), **given)


def quickly_composed(overrides: Sequence[str]) -> DictConfig:
    """Return what `composed` returns; the options are composed once a process while their files stay.

    Hydra takes some 0.3 s for the options, which are the same in most runs of a process, and a few milliseconds for the
    values. Whatever is not an option of ours or a value of a key, or is wrong, is left to `composed`.
    """
    groups = options()
    try:
        read = list(map(parsed, overrides))
        choices = [override for override in read if chooses(override, groups)]
        values = [override for override in read if sets_value(override, groups)]
        if len(choices) + len(values) == len(read):
            node = deepcopy(_of_options(tuple(str(override.input_line) for override in choices), option_files()))
            apply_values(values, node)
            return node
    except (HydraException, OmegaConfBaseException, YAMLError):
        pass  # to be raised by Hydra itself, which names the override
    return composed(overrides)


def option_files() -> tuple[tuple[str, int], ...]:
    """Return the option files of `conf/` with their times: what was composed from them holds while they stay."""
    return tuple((str(path), path.stat().st_mtime_ns) for path in sorted(CONF.rglob("*.yaml")))


@lru_cache(maxsize=64)
def _of_options(choices: tuple[str, ...], files: tuple[tuple[str, int], ...]) -> DictConfig:
    del files
    return composed(choices)


def explained(error: Exception, overrides: Sequence[str]) -> ConfigError:
    """Return Hydra's error as the problems of a command line, each with what was probably meant."""

    def attempt(some: Sequence[str]) -> tuple[DictConfig | None, str]:
        return tried([*search, *(map(first_of_sweep, some) if sweeps(overrides) else some)])

    search = search_of(overrides)
    others = [override for override in overrides if key_of(override) != SEARCH]
    return ConfigError(explain(others, options(overrides), attempt) or [first_line(error, overrides)])


def tried(overrides: Sequence[str], **options: bool) -> tuple[DictConfig | None, str]:
    """Compose these overrides alone; return the node, or None and Hydra's reason."""
    try:
        return (composed(overrides, **options) if options else quickly_composed(overrides)), ""
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        return None, first_line(error.__cause__ or error, overrides)


def first_of_sweep(override: str) -> str:
    """Return an override with the first of its values; one with a single value is returned unchanged."""
    try:
        values = parsed(override)
        if not values.is_sweep_override():
            return override
        return f"{override.partition('=')[0]}={next(iter(values.sweep_string_iterator()))}"
    except HydraException:
        return override


def first_line(error: BaseException, arguments: Sequence[str] = ()) -> str:
    """Return an error of Hydra, OmegaConf or the YAML parser in one line, with the file or the key that it is about."""
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        return f"{error.problem_mark.name}, line {error.problem_mark.line + 1}: not YAML: {error.problem}"
    lines: list[str] = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines[:1] = [line.partition(_RESOLVING)[2].strip("\"'") or line for line in lines[:1]]
    key = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key:")), "")
    lines[1:2] = [in_words(key, line) for line in lines[1:2]]  # of a file of options
    in_file = file_problem(key, lines, options=options(arguments), keys_of=keys_of, lacks_schema=lacks_schema_of)
    if in_file:
        return in_file
    if not lines:
        return type(error).__name__
    chosen = re.match(r"Multiple values for (\w+)\.", lines[0])
    key = key or (chosen[1] if chosen else "")
    return f"{key}: {in_words(key, lines[0])}" if key else lines[0]


def readable(overrides: Sequence[str]) -> list[str]:
    """Return the overrides with quotes around values that Hydra's grammar cannot read without, e.g. `run=zürich`."""

    def reads(override: str) -> bool:
        try:
            parsed(override)
        except HydraException:
            return False
        return True

    result = []
    for override in with_policy_file(overrides):
        override = override.replace(key_of(override), spelled_key(key_of(override)), 1)
        key, equals, value = override.partition("=")
        quoted = f"{key}='{value}'"
        if value.startswith("[") and value.endswith("]"):
            quoted = f"{key}={_quoted_list(value[1:-1].split(','))}"
        needed = equals and not override.startswith("-") and not reads(override) and reads(quoted)
        result.append(quoted if needed else override)
    return result


def spelled_key(key: str) -> str:
    """Return a key as its dataclass spells it."""
    return _SPELT.get(key, key)


def with_policy_file(overrides: Sequence[str]) -> list[str]:
    """Return the overrides with the settings in the file in the place of `naming=FILE`, so that a run keeps them.

    Raises:
        FileFormatError: the file cannot be read, or is not a policy.
    """
    result = []
    for override in overrides:
        key, _, word = override.partition("=")
        if key != "naming" or not is_policy_file(word := word.strip("'\"")):
            result.append(override)
            continue
        path = Path(word)
        mode = read_policy(path).mode
        if "${" in str(policy_settings(path)):
            raise FileFormatError(f"{path}: nothing is looked up for a policy, and no name or pattern needs ${{...}}")
        settings = {name: value for name, value in policy_settings(path).items() if name != "mode"}
        result.append(f"naming={mode}")
        for name, value in settings.items():
            result += _settings_of(f"naming.{name}", value)
    return result


def _settings_of(key: str, value: Any) -> list[str]:
    """Return the overrides that give a setting its value; a key of digits is a number within Hydra's braces."""
    if not isinstance(value, dict):
        return [f"{key}={spelt(value)}"]
    numbered = {name for name in value if name.isdigit()}
    whole = {name: inner for name, inner in value.items() if name not in numbered}
    return [f"{key}={spelt(whole)}", *(f"++{key}.{name}={spelt(value[name])}" for name in numbered)]


def _quoted_list(values: Sequence[str]) -> str:
    return "[" + ",".join(f"'{value}'" for value in values) + "]"
