"""A configuration as text: YAML for checkpoints, overrides for a command line; and read back from a checkpoint.

A stored configuration may come from someone else. Nine levels of aliases expand to gigabytes, thousands of levels of
nesting overflow the stack, and `${oc.env:SECRET}` would be looked up in this process: so YAML is measured before it is
parsed, it may have no aliases and no tags, and `${...}` stays text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from nameplate.data import targets
from nameplate.formats.plain_yaml import require_plain
from nameplate.section import ConfigError
from nameplate.training import config_diff
from nameplate.training.config_diff import ConfigDiff
from trainer.config.composing import run_config
from trainer.config.hydra_queries import first_line, option_files, tried
from trainer.config.overrides import spelt
from trainer.config.run_config import RunConfig
from trainer.config.schemas import SCHEMAS, writable

_OPENING = "${"
_HIDDEN = "$\N{WORD JOINER}{"  # stands for it while OmegaConf has the text
_REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*(?:\.\w+)*)\}")  # to another key; a resolver would have a colon
_LONGEST = 256  # characters of a value that a reference is replaced with
_MOST_REFERENCES = 16  # in one value


def parsed(text: str) -> Any:
    """Return the dictionaries, lists and scalars of a YAML text; `${...}` stays as written.

    Raises:
        ConfigError: it is not YAML, or it is larger or deeper than a configuration, or has aliases or tags.
    """
    try:
        require_plain(text)
        tree = OmegaConf.to_container(OmegaConf.create(text.replace(_OPENING, _HIDDEN)), resolve=False)
    except (OmegaConfBaseException, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise _refused((str(error).splitlines() or [type(error).__name__])[0]) from None
    return shown(tree)


def hidden(value: Any) -> Any:
    """Return plain data in which OmegaConf finds no interpolation."""
    return _replaced(value, _OPENING, _HIDDEN)


def shown(value: Any) -> Any:
    """Return plain data as it was before `hidden`."""
    return _replaced(value, _HIDDEN, _OPENING)


def referred(value: Any, tree: Mapping[str, Any]) -> Any:
    """Return plain data with each `${section.key}` replaced by the plain value at that key of `tree`.

    Any other `${...}` stays. A value that is itself a reference is not followed.
    """
    if isinstance(value, dict):
        return {key: referred(inner, tree) for key, inner in value.items()}
    if isinstance(value, list):
        return [referred(inner, tree) for inner in value]
    if not isinstance(value, str) or not 0 < value.count(_OPENING) <= _MOST_REFERENCES:
        return value
    whole = _REFERENCE.fullmatch(value)
    if whole:
        return _looked_up(whole[1], tree, value)
    return _REFERENCE.sub(lambda match: str(_looked_up(match[1], tree, match[0])), value)


def _looked_up(key: str, tree: Any, written: str) -> Any:
    for part in key.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            return written
        tree = tree[part]
    plain = tree is None or isinstance(tree, bool | int | float | str)
    return tree if plain and _OPENING not in str(tree) and len(str(tree)) <= _LONGEST else written


def _replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, dict):
        return {_replaced(key, old, new): _replaced(inner, old, new) for key, inner in value.items()}
    return [_replaced(inner, old, new) for inner in value] if isinstance(value, list) else value


def _refused(why: str) -> ConfigError:
    return ConfigError([f"the stored configuration: {why}"])


OPTION = "_option_"


def to_plain(config: RunConfig) -> dict[str, Any]:
    """Return the configuration as nested plain data.

    A group with several options has the chosen one under `_option_`. An interpolation stays as it was written: a
    checkpoint must not reveal what `${oc.env:TOKEN}` is in this process's environment.
    """
    tree: Any = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    for group, schemas in SCHEMAS.items():
        if isinstance(schemas, dict):
            chosen = type(getattr(config, group))
            tree[group] = {OPTION: next((key for key, schema in schemas.items() if schema is chosen), "")} | tree[group]
    return _as_written(tree, config.interpolated)


def to_yaml(config: RunConfig) -> str:
    """Return the configuration of `to_plain` as YAML text."""
    return OmegaConf.to_yaml(OmegaConf.create(to_plain(config)))


def defaults_of(config: RunConfig) -> dict[str, Any]:
    """Return the default of every setting, for the options that `config` has chosen."""
    sections = {own.name: type(getattr(config, own.name))() for own in fields(config) if own.name in SCHEMAS}
    return to_plain(RunConfig(**sections))


def from_yaml(text: str) -> dict[str, Any]:
    """Return the configuration in a checkpoint as nested plain data; nothing in it is looked up or instantiated.

    Raises:
        ConfigError: as `parsed`.
    """
    tree = parsed(text)
    plain = {str(key): value for key, value in tree.items()} if isinstance(tree, dict) else {}
    model = plain.get("model")
    if isinstance(model, dict) and model.get(OPTION) != "custom" and isinstance(model.get("_target_"), str):
        plain["model"] = model | {"_target_": targets.current(model["_target_"])}
    return plain


def stored_config(text: str, *, unchecked: str = "") -> RunConfig:
    """Return the configuration that a run or checkpoint has as YAML text; nothing that it names is imported.

    Settings that this version does not know are dropped, and those that are missing have their defaults. A reference to
    another key, such as `${runs}`, is replaced by its value; one to this process, such as `${oc.env:HOME}`, stays text.
    The section `unchecked` may have values that cannot be used here, such as data that is elsewhere.

    Raises:
        ConfigError: the text is not a configuration, or has values that cannot be used.
    """
    tree = from_yaml(text)
    known = [own.name for own in fields(RunConfig) if own.name not in SCHEMAS]
    # Interpolations are left out: no setting outside the sections decides what was trained.
    plain = {name: tree[name] for name in known if name in tree and "${" not in str(tree[name])}
    given = {name: hidden(referred(tree.get(name), tree)) for name in SCHEMAS}
    try:
        whole = OmegaConf.create({name: _stored(name, given[name]) for name in SCHEMAS} | plain)
        sections: Any = {name: _as_text(OmegaConf.to_object(whole[name])) for name in SCHEMAS}
    except (OmegaConfBaseException, MissingMandatoryValue) as error:
        raise ConfigError([f"the stored configuration: {_explained(first_line(error))}"]) from None
    config = RunConfig(**sections, **plain)
    problems = [text for text in config.problems() if not (unchecked and re.match(rf"{unchecked}\b", text))]
    if problems:
        raise ConfigError(problems)
    return config


def _as_text(section: Any) -> Any:
    """Return a section with `${...}` as it was written."""
    values = {own.name: getattr(section, own.name) for own in fields(section) if own.init}
    texts = {name: _as_text(value) if is_dataclass(value) else shown(value) for name, value in values.items()}
    return replace(section, **texts) if texts != values else section


def _explained(message: str) -> str:
    text: str = shown(message)
    return f"{text} (it is not looked up in this process)" if "${" in text else text


def _stored(group: str, values: Any) -> DictConfig:
    """Return the node of a section with the schema of its option."""
    schemas = SCHEMAS[group]
    given = dict(values) if isinstance(values, dict) else {}
    option = given.pop(OPTION, "")
    if isinstance(schemas, dict) and option not in schemas:
        raise ConfigError([f"the stored configuration: {group} is {option!r}, and there are {', '.join(schemas)}"])
    node = writable(schemas[option] if isinstance(schemas, dict) else schemas)
    known = set(node)  # with keys that have no value, which `in` would miss
    merged = OmegaConf.merge(node, {key: value for key, value in given.items() if key in known})
    assert isinstance(merged, DictConfig)
    return merged


def _as_written(value: Any, written: Mapping[str, str], key: str = "") -> Any:
    if key in written:
        return written[key]
    inside = f"{key}." if key else ""
    if isinstance(value, dict):
        return {name: _as_written(inner, written, f"{inside}{name}") for name, inner in value.items()}
    if isinstance(value, list):
        return [_as_written(inner, written, f"{inside}{index}") for index, inner in enumerate(value)]
    return value


def agreement(
    config: RunConfig,
    *,
    say: Callable[[str], None],
    model: str = "",
    layers: Callable[[str], Mapping[str, Any]] = lambda text: {},
) -> Callable[..., ConfigDiff]:
    """Return a function that compares a checkpoint's configuration, as YAML, with this one.

    It takes the YAML, the name of the checkpoint for messages and its model as JSON, and returns the differences, which
    are also reported with `say`. It raises `ConfigDiffError` for those that `resume_changed` does not allow.

    Args:
        config: of the run that resumes.
        say: shows the differences.
        model: this run's model as JSON, where no setting describes it; empty: models are not compared.
        layers: returns the layers of a model in JSON as plain data.
    """

    def agree(stored: str, where: str, stored_model: str = "") -> ConfigDiff:
        changes = config_diff.compare(from_yaml(stored), to_plain(config), defaults=defaults_of(config))
        if model:
            old, new = ({"model": {"layers": layers(text)}} for text in (stored_model, model))
            changes += config_diff.compare(old, new, defaults={})
        diff = config_diff.agree(changes, meant=config.resume_changed, where=where)
        if diff.changes:
            say(config_diff.describe(diff, where=where))
        return diff

    return agree


def overrides_of(config: RunConfig) -> list[str] | None:
    """Return the overrides from which `run_config` composes this configuration, without those of `ONCE`.

    None if a value cannot be written as an override.
    """
    wanted = to_plain(replace(config, run=None, resume=True, resume_changed=[], dry_run=False))
    chosen = {group: tree[OPTION] for group, tree in wanted.items() if isinstance(tree, dict) and OPTION in tree}
    try:
        files = option_files()
        plain = _plain((), files)
        choices = [f"{group}={option}" for group, option in chosen.items() if plain[group][OPTION] != option]
        overrides = [*choices, *_differing(wanted, _composed(tuple(choices), files))]
        again = _plain(tuple(overrides), files)
    except ConfigError:
        return None
    return overrides if _keyed_by_text(again) == _keyed_by_text(wanted) else None


@lru_cache(maxsize=16)
def _plain(overrides: tuple[str, ...], files: tuple[tuple[str, int], ...]) -> dict[str, Any]:
    """Return the configuration that these overrides give, nested plain data."""
    del files
    return dict(to_plain(run_config(overrides)))


@lru_cache(maxsize=16)
def _composed(choices: tuple[str, ...], files: tuple[tuple[str, int], ...]) -> dict[str, Any]:
    """Return the configuration of these options as nested plain data; missing values are `???`."""
    del files
    node, reason = tried(choices)
    if node is None:
        raise ConfigError([reason])
    tree: Any = OmegaConf.to_container(node, enum_to_str=True)
    return dict(tree)


def _differing(wanted: Mapping[str, Any], usual: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield an override for each value that differs; a mapping with free keys is written whole."""
    for key, value in wanted.items():
        before = usual.get(key)
        if key == OPTION or value == before:
            continue
        if isinstance(value, dict) and isinstance(before, dict) and value.keys() - {OPTION} == before.keys():
            yield from _differing(value, before, f"{prefix}{key}.")
        else:
            name = "init.from" if f"{prefix}{key}" == "init.from_" else f"{prefix}{key}"
            yield f"{name}={spelt(value)}"


def _keyed_by_text(value: Any) -> Any:
    """Return nested plain data with keys as text: `5` is a number on a command line, and may be a text in a file."""
    if isinstance(value, dict):
        return {str(key): _keyed_by_text(inner) for key, inner in value.items()}
    return [_keyed_by_text(inner) for inner in value] if isinstance(value, list) else value
