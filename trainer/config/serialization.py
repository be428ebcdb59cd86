"""YAML of a stored configuration as plain data, within bounds: no aliases, no tags, no interpolation.

Someone else may have written it. Nine levels of aliases grow to gigabytes, thousands of levels of nesting overflow a
stack, and `${oc.env:SECRET}` would be looked up in this process: so a text is measured before it is parsed, and what
stands in `${...}` stays text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from nameplate.data import targets
from nameplate.section import ConfigError
from nameplate.training import config_diff
from nameplate.training.config_diff import Drift
from trainer.config.composing import run_config
from trainer.config.hydra_queries import first_line, tried
from trainer.config.run_config import RunConfig
from trainer.config.schemas import SCHEMAS, writable

LARGEST = 256 << 10  # bytes; ours have 2 KiB
MOST_NODES = 10_000  # values, keys included
DEEPEST = 32

_OPENING = "${"
_HIDDEN = "$\N{WORD JOINER}{"  # how it stands while OmegaConf has the text
_REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*(?:\.\w+)*)\}")  # to another key; a resolver would have a colon
_LONGEST = 256  # characters of a value that is put where it is referred to
_MOST_REFERENCES = 16  # in one value
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parsed(text: str) -> Any:
    """Return the dictionaries, lists and scalars of a YAML text; `${...}` stays as it is written.

    Raises:
        ConfigError: it is no YAML, or it is larger, deeper or stranger than a configuration.
    """
    if len(text) > LARGEST:
        raise _refused(f"it has {len(text)} characters; at most {LARGEST} are read")
    try:
        _measure(text)
        tree = OmegaConf.to_container(OmegaConf.create(text.replace(_OPENING, _HIDDEN)), resolve=False)
    except (OmegaConfBaseException, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise _refused((str(error).splitlines() or [type(error).__name__])[0]) from None
    return shown(tree)


def hidden(value: Any) -> Any:
    """Return plain data in which OmegaConf sees no interpolation."""
    return _replaced(value, _OPENING, _HIDDEN)


def shown(value: Any) -> Any:
    """Return plain data as it was before `hidden`."""
    return _replaced(value, _HIDDEN, _OPENING)


def referred(value: Any, tree: Mapping[str, Any]) -> Any:
    """Return plain data in which `${section.key}` is the plain value at that key of `tree`; all else in `${...}` stays.

    Values are put in once: one that refers further is not followed.
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
    return _REFERENCE.sub(lambda found: str(_looked_up(found[1], tree, found[0])), value)


def _looked_up(key: str, tree: Any, written: str) -> Any:
    for part in key.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            return written
        tree = tree[part]
    plain = tree is None or isinstance(tree, bool | int | float | str)
    return tree if plain and _OPENING not in str(tree) and len(str(tree)) <= _LONGEST else written


def _measure(text: str) -> None:
    nodes = depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ValueError("it has an anchor or an alias; a configuration is written without")
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            nodes += 1
            depth += isinstance(event, yaml.CollectionStartEvent)
            if event.tag is not None:
                raise ValueError(f"it has the tag {event.tag!r:.80}; a configuration is written without")
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if nodes > MOST_NODES or depth > DEEPEST:
            raise ValueError(f"it has more than {MOST_NODES} values, or is nested deeper than {DEEPEST} levels")


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
    plain = {str(key): value for key, value in tree.items()} if isinstance(tree, dict) else {}
    model = plain.get("model")
    if isinstance(model, dict) and model.get(OPTION) != "custom" and isinstance(model.get("_target_"), str):
        plain["model"] = model | {"_target_": targets.current(model["_target_"])}
    return plain


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


def agreement(config: RunConfig, *, say: Callable[[str], None]) -> Callable[[str, str], Drift]:
    """Return what to ask of a checkpoint: its configuration as YAML, and which it is in words.

    The answer is the drift that is meant; `DriftError` where nobody meant it.
    """

    def agree(stored: str, where: str) -> Drift:
        changes = config_diff.compare(from_yaml(stored), to_plain(config), defaults=defaults_of(config))
        found = config_diff.agree(changes, meant=config.resume_changed, where=where)
        if found.changes:
            say(config_diff.in_words(found, where=where))
        return found

    return agree


_BARE = re.compile(r"[A-Za-z_./-][\w./ @:?&|-]*\Z", re.ASCII)  # texts that Hydra's grammar reads without quotes
_WORDS = ("null", "true", "false", "nan", "inf")


def overrides_of(config: RunConfig) -> list[str] | None:
    """Return the overrides under which `run_config` gives this configuration, without those of `ONCE`.

    None where there are none: a value that no override can say. Composes twice.
    """
    wanted = to_plain(replace(config, run=None, resume=True, resume_changed=[], dry_run=False))
    chosen = {group: tree[OPTION] for group, tree in wanted.items() if isinstance(tree, dict) and OPTION in tree}
    try:
        plain = to_plain(run_config())
        choices = [f"{group}={option}" for group, option in chosen.items() if plain[group][OPTION] != option]
        found = [*choices, *_differing(wanted, _composed(choices))]
        again = to_plain(run_config(found))
    except ConfigError:
        return None
    return found if _keyed_by_text(again) == _keyed_by_text(wanted) else None


def _composed(choices: Sequence[str]) -> dict[str, Any]:
    """Return what these options say, nested plain data; what they leave to be said is `???`."""
    node, reason = tried(choices)
    if node is None:
        raise ConfigError([reason])
    tree: Any = OmegaConf.to_container(node, enum_to_str=True)
    return dict(tree)


def _differing(wanted: Mapping[str, Any], usual: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield an override for each value that differs; a mapping of the user's own keys is written whole."""
    for key, value in wanted.items():
        before = usual.get(key)
        if key == OPTION or value == before:
            continue
        if isinstance(value, dict) and isinstance(before, dict) and value.keys() - {OPTION} == before.keys():
            yield from _differing(value, before, f"{prefix}{key}.")
        else:
            name = "init.from" if f"{prefix}{key}" == "init.from_" else f"{prefix}{key}"
            yield f"{name}={_spelt(value)}"


def _spelt(value: Any) -> str:
    """Return a value in the grammar of Hydra's overrides."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_spelt(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_spelt, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    text = str(value)
    if _BARE.match(text) and text.casefold() not in _WORDS and text == text.strip():
        return text
    escaped = re.sub(r"(\\+)(?='|\Z)", r"\1\1", text).replace("'", "\\'")  # only before a quote is one an escape
    return f"'{escaped}'"


def _keyed_by_text(value: Any) -> Any:
    """Return nested plain data with text for keys: `5` of a command line is a number, and may be a text in a file."""
    if isinstance(value, dict):
        return {str(key): _keyed_by_text(each) for key, each in value.items()}
    return [_keyed_by_text(each) for each in value] if isinstance(value, list) else value
