"""What a command line and the files that it adds may not say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from nameplate.section import ConfigError
from trainer.config.hydra_queries import CONF, SEARCH, first_of_sweep, options, places_of, search_of, tried
from trainer.config.overrides import dotted_keys, flag_problems, key_of, no_such_key, null_problems, overrides_of
from trainer.config.run_config import RunConfig
from trainer.config.schemas import SCHEMAS, classes_of, lacks_schema
from trainer.config.search_path import place_problems

# What Hydra and its own plugins name in their options; Optuna's sampler and coloured logs are of packages beside them.
# Not all of `logging.`: `logging.config.fileConfig` evaluates what is in its file.
_OF_HYDRA = (
    *("hydra._internal.core_plugins.", "hydra.experimental.", "hydra_plugins.", "optuna.samplers.", "colorlog."),
    *("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "logging.Formatter", "logging.handlers."),
)


def refuse_places(arguments: Sequence[str]) -> None:
    """Find places that a command line adds to conf/ and that cannot be searched, and options that there are not."""
    if problems := [*flag_problems(arguments), *place_problems(places_of(arguments), conf=CONF)]:
        raise ConfigError(problems)
    if problems := null_problems(arguments, options(arguments)):
        raise ConfigError(problems)
    if places_of(arguments) or any(_is_of_hydra(each) for each in overrides_of(arguments)):
        _refuse_foreign_hydra(arguments)


def refuse_trust_of_files(node: DictConfig, overrides: Sequence[str]) -> None:
    """Find trust that a file of options gives to itself: what may be imported is for the command line to say."""
    if node.get("trust") and not any(key_of(each) == "trust" for each in overrides):
        named = ",".join(map(str, node.trust))
        raise ConfigError(
            [f"trust: a file of options sets it to [{named}]. It counts on the command line alone: trust=[{named}]"]
        )


def refuse_trust_before(config: RunConfig) -> None:
    """Find trust for the runs before this one: they get its trust and its places, and none can have more."""
    found = [
        f"before.{name}: {each} is for the command line alone, which hands it on"
        for name, overrides in (config.before or {}).items()
        for each in overrides
        if each.startswith(("-", "hydra.")) or key_of(each) in ("trust", SEARCH)
    ]
    if found:
        raise ConfigError(found)


def refuse_untyped(node: DictConfig) -> None:
    """Find options whose file forgot its schema: nothing would check their values."""
    untyped = [name for name, schemas in SCHEMAS.items() if OmegaConf.get_type(node, name) not in classes_of(schemas)]
    if untyped:
        raise ConfigError([f"{name}: {lacks_schema(name)}" for name in untyped])


def refuse_added(node: DictConfig) -> None:
    """Find keys that `+key=value` put beside the fields of a section; no field would hold them."""
    added = list(_added(node))
    if added:
        known = sorted({*dotted_keys(node), *options()} - set(added))
        raise ConfigError([no_such_key(key, known) for key in added])


def _is_of_hydra(override: str) -> bool:
    return re.split(r"[./]", key_of(override))[0] == "hydra" and key_of(override) != SEARCH


def _refuse_foreign_hydra(arguments: Sequence[str]) -> None:
    """Find what a file of options or an override has Hydra itself import, a callback for one: Hydra asks nobody."""
    asked = any(key_of(each) == "trust" for each in arguments)
    found: dict[str, None] = {}
    for overrides in _each_choice(arguments):
        node, _ = tried([*search_of(arguments), *overrides], return_hydra_config=True)
        if node is not None:  # or it is told in its own words when it is composed to run
            plain: Any = OmegaConf.to_container(node.hydra, resolve=False)
            allowed = (*_OF_HYDRA, *(f"{each}." for each in (node.trust if asked else ())))
            found |= {
                f"{key}: {name!r}": None for key, name in _targets(plain, "hydra") if not name.startswith(allowed)
            }
    if found:
        raise ConfigError(
            [f"{each} is nothing that Hydra may import; trust=[...] on the command line" for each in found]
        )


def _each_choice(arguments: Sequence[str]) -> Iterator[list[str]]:
    """Yield the overrides of one job after another until every option that a sweep chooses was in one."""
    asked = _others(arguments)
    first = [first_of_sweep(each) for each in asked]
    yield first
    for place, each in enumerate(asked):
        if key_of(each) in options(arguments):
            for other in each.partition("=")[2].split(",")[1:]:
                yield [*first[:place], f"{each.partition('=')[0]}={other}", *first[place + 1 :]]


def _others(arguments: Sequence[str]) -> list[str]:
    """Return the overrides among the arguments, without what is searched."""
    return [each for each in overrides_of(arguments) if key_of(each) != SEARCH]


def _targets(tree: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield (dotted key, name) of everything in a plain tree that Hydra, or the logging that it sets up, imports."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, each in inside:
        if name in ("_target_", "class", "()"):
            yield f"{key}.{name}", str(each)
        yield from _targets(each, f"{key}.{name}")


def _added(node: DictConfig, prefix: str = "") -> Iterator[str]:
    schema: Any = OmegaConf.get_type(node)
    known = {each.name for each in fields(schema) if not each.metadata.get("omegaconf_ignore")}
    for key in map(str, node):
        child = node._get_node(key)
        if key not in known:
            yield f"{prefix}{key}"
        elif isinstance(child, DictConfig) and is_dataclass(OmegaConf.get_type(child)):
            yield from _added(child, f"{prefix}{key}.")
