"""What a command line may not ask for, nor the files of options that it adds: each check raises ConfigError."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from nameplate.section import ConfigError
from trainer.config.hydra_private import child
from trainer.config.hydra_queries import CONF, SEARCH, first_of_sweep, options, places_of, search_of, tried
from trainer.config.overrides import dotted_keys, flag_problems, form_problems, key_of, no_such_key, overrides_of
from trainer.config.run_config import RunConfig
from trainer.config.schemas import SCHEMAS, classes_of, lacks_schema
from trainer.config.search_path import place_problems

# What Hydra and its plugins name in their own options, with Optuna's samplers and coloured logs. Not all of `logging.`:
# `logging.config.fileConfig` evaluates the content of a file.
_OF_HYDRA = (
    *("hydra._internal.core_plugins.", "hydra.experimental.", "hydra_plugins.", "optuna.samplers.", "colorlog."),
    *("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "logging.Formatter", "logging.handlers."),
)


def refuse_places(arguments: Sequence[str]) -> None:
    """Refuse unknown options, places with options that cannot be searched, and untrusted imports by Hydra."""
    if problems := [*flag_problems(arguments), *place_problems(places_of(arguments), conf=CONF)]:
        raise ConfigError(problems)
    if problems := form_problems(arguments, options(arguments)):
        raise ConfigError(problems)
    if places_of(arguments) or any(map(_is_of_hydra, overrides_of(arguments))):
        _refuse_foreign_hydra(arguments)


def refuse_trust_of_files(node: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse trust that a file of options sets: only the command line says what may be imported."""
    if node.get("trust") and "trust" not in map(key_of, overrides):
        packages = ",".join(map(str, node.trust))
        raise ConfigError(
            [f"trust: a file of options sets it to [{packages}]. Only the command line may: trust=[{packages}]"]
        )


def refuse_trust_before(config: RunConfig) -> None:
    """Refuse trust and search paths for the runs before this one: they get those of this run, and no more."""
    problems = [
        f"before.{name}: {override} is only for the command line, which passes it on"
        for name, overrides in (config.before or {}).items()
        for override in overrides
        if override.startswith(("-", "hydra.")) or key_of(override) in ("trust", SEARCH)
    ]
    if problems:
        raise ConfigError(problems)


def refuse_untyped(node: DictConfig) -> None:
    """Refuse options whose file lacks its schema: nothing would check their values."""
    untyped = [name for name, schemas in SCHEMAS.items() if OmegaConf.get_type(node, name) not in classes_of(schemas)]
    if untyped:
        raise ConfigError([f"{name}: {lacks_schema(name)}" for name in untyped])


def refuse_added(node: DictConfig) -> None:
    """Refuse keys that `+key=value` added to a section: it has no field for them."""
    added = list(_added(node))
    if added:
        known = sorted({*dotted_keys(node), *options()} - set(added))
        raise ConfigError([no_such_key(key, known) for key in added])


def _is_of_hydra(override: str) -> bool:
    return re.split(r"[./]", key_of(override))[0] == "hydra" and key_of(override) != SEARCH


def _refuse_foreign_hydra(arguments: Sequence[str]) -> None:
    """Refuse objects, such as callbacks, that an option or override has Hydra import: Hydra itself checks nothing."""
    trusts = "trust" in map(key_of, arguments)
    foreign: dict[str, None] = {}
    for overrides in _choices(arguments):
        node, _ = tried([*search_of(arguments), *overrides], return_hydra_config=True)
        if node is not None:  # else the error is reported when the configuration is composed to run
            plain: Any = OmegaConf.to_container(node.hydra, resolve=False)
            allowed = (*_OF_HYDRA, *(f"{package}." for package in (node.trust if trusts else ())))
            foreign |= {
                f"{key}: {name!r}": None for key, name in _targets(plain, "hydra") if not name.startswith(allowed)
            }
    if foreign:
        raise ConfigError(
            [f"{target} may not be imported by Hydra; trust=[...] on the command line" for target in foreign]
        )


def _choices(arguments: Sequence[str]) -> Iterator[list[str]]:
    """Yield the overrides of one job after another, until every option that a sweep chooses was in one."""
    overrides = [override for override in overrides_of(arguments) if key_of(override) != SEARCH]
    first = [first_of_sweep(override) for override in overrides]
    yield first
    for place, override in enumerate(overrides):
        if key_of(override) in options(arguments):
            for option in override.partition("=")[2].split(",")[1:]:
                yield [*first[:place], f"{override.partition('=')[0]}={option}", *first[place + 1 :]]


def _targets(tree: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield (dotted key, name) of everything in a plain tree that Hydra, or the logging that it sets up, imports."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, value in inside:
        if name in ("_target_", "class", "()"):
            yield f"{key}.{name}", str(value)
        yield from _targets(value, f"{key}.{name}")


def _added(node: DictConfig, prefix: str = "") -> Iterator[str]:
    schema: Any = OmegaConf.get_type(node)
    known = {field.name for field in fields(schema) if not field.metadata.get("omegaconf_ignore")}
    for key in map(str, node):
        inner = child(node, key)
        if key not in known:
            yield f"{prefix}{key}"
        elif isinstance(inner, DictConfig) and is_dataclass(OmegaConf.get_type(inner)):
            yield from _added(inner, f"{prefix}{key}.")
