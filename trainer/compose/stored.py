"""A configuration as text in a run or a checkpoint, and back: nothing that it names is looked up or imported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from trainer.command_line.schemas import SCHEMAS
from trainer.compose.asking import first_line
from trainer.compose.nodes import writable
from trainer.compose.plain_yaml import hidden, parsed, referred, shown
from trainer.config.base import ConfigError
from trainer.config.run import RunConfig

OPTION = "_option_"


def to_plain(config: RunConfig) -> dict[str, Any]:
    """Return the configuration as nested plain data.

    A group with several options tells which one was chosen, under `_option_`. What was given as an interpolation stands
    there as it was written: what `${oc.env:TOKEN}` is in this process's environment is nothing that a checkpoint
    should tell.
    """
    tree: Any = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    for group, schemas in SCHEMAS.items():
        if isinstance(schemas, dict):
            chosen = type(getattr(config, group))
            tree[group] = {OPTION: next((key for key, each in schemas.items() if each is chosen), "")} | tree[group]
    return _as_written(tree, config.interpolated)


def to_yaml(config: RunConfig) -> str:
    """Return the configuration of `to_plain` as YAML text."""
    return OmegaConf.to_yaml(OmegaConf.create(to_plain(config)))


def defaults_of(config: RunConfig) -> dict[str, Any]:
    """Return what every setting is when nothing is said, for the options that `config` has chosen."""
    sections = {each.name: type(getattr(config, each.name))() for each in fields(config) if each.name in SCHEMAS}
    return to_plain(RunConfig(**sections))


def from_yaml(text: str) -> dict[str, Any]:
    """Return the configuration in a checkpoint as nested plain data; nothing in it is looked up or instantiated.

    Raises:
        ConfigError: the text is no configuration, or larger, deeper or stranger than one.
    """
    tree = parsed(text)
    return {str(key): value for key, value in tree.items()} if isinstance(tree, dict) else {}


def stored_config(text: str, *, unchecked: str = "") -> RunConfig:
    """Return the configuration that a run or checkpoint holds as YAML text; nothing that it names is imported.

    Settings that this version does not know are left out, and those that it did not know have their defaults. What
    refers to another key, as `${runs}`, has its value; what refers to this process, as `${oc.env:HOME}`, stays text.
    The section `unchecked` may have values that cannot be used here: data that is elsewhere.

    Raises:
        ConfigError: the text is no configuration, or has values that cannot be used.
    """
    tree = from_yaml(text)
    known = [each.name for each in fields(RunConfig) if each.name not in SCHEMAS]
    # An interpolation stands there as it was written; no setting outside the sections says what was trained.
    plain = {name: tree[name] for name in known if name in tree and "${" not in str(tree[name])}
    given = {name: hidden(referred(tree.get(name), tree)) for name in SCHEMAS}
    try:
        whole = OmegaConf.create({name: _stored(name, given[name]) for name in SCHEMAS} | plain)
        sections: Any = {name: _as_text(OmegaConf.to_object(whole[name])) for name in SCHEMAS}
    except (OmegaConfBaseException, MissingMandatoryValue) as error:
        raise ConfigError([f"the stored configuration: {_explained(first_line(error))}"]) from None
    config = RunConfig(**sections, **plain)
    problems = [each for each in config.problems() if not (unchecked and re.match(rf"{unchecked}\b", each))]
    if problems:
        raise ConfigError(problems)
    return config


def _as_text(section: Any) -> Any:
    """Return a section in which `${...}` stands as it was written."""
    values = {each.name: getattr(section, each.name) for each in fields(section) if each.init}
    texts = {name: _as_text(value) if is_dataclass(value) else shown(value) for name, value in values.items()}
    return replace(section, **texts) if texts != values else section


def _explained(message: str) -> str:
    text: str = shown(message)
    return f"{text} (nothing of this process is looked up for it)" if "${" in text else text


def _stored(group: str, values: Any) -> DictConfig:
    """Return a section's node, of the option that was chosen."""
    schemas = SCHEMAS[group]
    given = dict(values) if isinstance(values, dict) else {}
    option = given.pop(OPTION, "")
    if isinstance(schemas, dict) and option not in schemas:
        raise ConfigError([f"the stored configuration: {group} is {option!r}, and there are {', '.join(schemas)}"])
    node = writable(schemas[option] if isinstance(schemas, dict) else schemas)
    known = set(node)  # also what has no value yet, which `in` would leave out
    merged = OmegaConf.merge(node, {key: value for key, value in given.items() if key in known})
    assert isinstance(merged, DictConfig)
    return merged


def _as_written(value: Any, written: Mapping[str, str], key: str = "") -> Any:
    if key in written:
        return written[key]
    inside = f"{key}." if key else ""
    if isinstance(value, dict):
        return {name: _as_written(each, written, f"{inside}{name}") for name, each in value.items()}
    if isinstance(value, list):
        return [_as_written(each, written, f"{inside}{index}") for index, each in enumerate(value)]
    return value
