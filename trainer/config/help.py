"""`--help` and `--list`: every key of the configuration with what its dataclass says of it, every option in a line."""

from __future__ import annotations

import inspect
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import EnumMeta
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]  # OmegaConf's own parser; it ships no types

from nameplate.naming.keras_objects import CALLBACKS, LOSSES, METRICS, OPTIMIZERS, SCHEDULES
from nameplate.naming.names import did_you_mean, nearest
from nameplate.section import ConfigError
from nameplate.text_table import described
from trainer.config.composing import register
from trainer.config.hydra_private import child, is_given, written
from trainer.config.hydra_queries import (
    CONF,
    WRITTEN,
    composed,
    explained,
    first_of_sweep,
    options,
    places_of,
    readable,
    search_of,
    spelled_key,
)
from trainer.config.overrides import dotted_keys, key_of, no_such_key, overrides_of, spelt, sweeps
from trainer.config.run_config import RunConfig
from trainer.config.schemas import SCHEMAS, comments_of
from trainer.config.search_path import root_of
from trainer.config.validation import refuse_places

HELP, LIST = ("--help", "-h"), "--list"

_OF_FILES = {
    "experiment": "whole configurations that can be run as they are",
    "debug": "short forms of any run, to see whether it works",
}
# What may be named where any object is possible, by the key.
_OBJECTS = {
    "objective.loss": LOSSES,
    "objective.losses": LOSSES,
    "objective.metrics": METRICS,
    "objective.weighted_metrics": METRICS,
    "optimizer._target_": OPTIMIZERS,
    "schedule._target_": SCHEDULES,
    "callbacks": CALLBACKS,
}
_USAGE = """\
Nameplate trains Keras models on every GPU of a machine, and guarantees the
names of their layers.

  python -m trainer [GROUP=OPTION ...] [KEY=VALUE ...] [-m]

GROUP=OPTION chooses an option, KEY=VALUE sets a value. With run=NAME the same
command resumes the run; -m and values with commas make a sweep.

  --help GROUP         the keys of a group: --help optimizer
  --help GROUP=OPTION  the keys of another option: --help model=resnet
  --help KEY           one key, its type and its choices: --help fit.precision
  --list [GROUP]       the groups, or the options of one, in a line each
  --cfg job            print the whole configuration, and do not train
  -sc install=bash     completion for a shell; --hydra-help: Hydra's own flags
  --version            of Nameplate, Keras, TensorFlow and Python
"""


def is_help(arguments: Sequence[str]) -> bool:
    """Say whether a command line asks for help or for a list of options."""
    return any(word in (*HELP, LIST) for word in arguments)


def help_text(arguments: Sequence[str]) -> str:
    """Return what a command line with `--help` or `--list` asks for.

    Args:
        arguments: the words of the command line. Overrides among them choose the options whose keys are explained.

    Raises:
        ConfigError: a topic, a group or an override does not exist; the nearest is named.
    """
    width = min(shutil.get_terminal_size((100, 24)).columns, 120)
    register()
    words = [word for word in arguments if word not in (*HELP, LIST)]
    refuse_places(words)
    topics = [word for word in overrides_of(words) if "=" not in word]
    groups = options(words)
    if LIST in arguments:
        return _lists(topics, groups, words, width)
    topics = [spelled_key(topic) for topic in topics]
    topics, chosen = _resolved(topics, [word for word in overrides_of(words) if "=" in word], groups)
    overrides = [*search_of(words), *map(first_of_sweep if sweeps(words) else str, readable(chosen))]
    try:
        node = composed(overrides)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise explained(error, overrides) from None
    if not topics:
        return "\n".join([_USAGE, *_all(node, groups, width)])
    unknown = [topic for topic in topics if topic not in groups and topic not in set(_keys(node))]
    if unknown:
        raise ConfigError([f"--help {_unknown(topic, sorted({*groups, *_keys(node)}), groups)}" for topic in unknown])
    about = {group: _chosen_option(group, chosen, words) for group in groups}
    return "\n\n".join("\n".join(_topic(node, topic, groups, about, words, width)) for topic in topics)


def _resolved(
    topics: Sequence[str], chosen: Sequence[str], groups: Mapping[str, Sequence[str]]
) -> tuple[list[str], list[str]]:
    """Return topics and overrides, where `adamw` alone means the group optimizer with this option."""
    resolved, overrides = [], list(chosen)
    if not topics:  # `--help model=resnet` asks about the model
        resolved = [key_of(override) for override in chosen if key_of(override) in groups]
    for topic in topics:
        owners = [group for group, names in groups.items() if topic in names]
        if topic not in groups and len(owners) == 1:
            overrides.append(f"{owners[0]}={topic}")
            resolved.append(owners[0])
        else:
            resolved.append(topic)
    return list(dict.fromkeys(resolved)), overrides


def _unknown(topic: str, known: Sequence[str], groups: Mapping[str, Sequence[str]]) -> str:
    near = nearest(topic, [name for names in groups.values() for name in names])
    if near and not nearest(topic, known):
        meant = " or ".join(f"--help {group}={near[0]}" for group, names in groups.items() if near[0] in names)
        return f"{topic}: no such group or key. Did you mean {meant}?"
    return no_such_key(topic, known)


# ---- lists of options -------------------------------------------------------------------------------------------


def _lists(topics: Sequence[str], groups: Mapping[str, Sequence[str]], words: Sequence[str], width: int) -> str:
    chosen = [word for word in overrides_of(words) if "=" in word and key_of(word) != "hydra.searchpath"]
    problems = [
        f"--list {topic}: no such group.{did_you_mean(topic, groups)} There are {', '.join(groups)}"
        for topic in topics
        if topic not in groups
    ]
    problems += [f"--list {word}: a group is needed; --help {word} explains this" for word in chosen]
    if problems:
        raise ConfigError(problems)
    if not topics:
        return "\n".join(described([(group, _about_group(group)) for group in groups], width))
    tables = []
    for group in topics:
        rows = [(f"{group}={name}", _sentence(_about_option(group, name, words))) for name in groups[group]]
        tables.append("\n".join(described(rows, width)))
    return "\n\n".join(tables)


def _about_group(group: str) -> str:
    return _OF_FILES.get(group) or comments_of(RunConfig).get(group, "")


def _about_option(group: str, option: str, words: Sequence[str]) -> str:
    """Return what is said about an option: by its file, else by its dataclass."""
    schemas = SCHEMAS.get(group)
    schema = schemas.get(option) if isinstance(schemas, dict) else schemas
    of_schema = " ".join((schema.__doc__ or "").partition("\n\n")[0].split()) if schema else ""
    return " ".join(_comment_of(_file_of(group, option, words))) or of_schema


def _file_of(group: str, option: str, words: Sequence[str]) -> Any:
    """Return the file of an option, in conf/ or in a place that the command line adds."""
    roots = [CONF, *(root_of(place) for place in places_of(words))]
    files = [root.joinpath(group, *f"{option}.yaml".split("/")) for root in roots]
    return next((file for file in files if file.is_file()), files[0])


def _comment_of(file: Any) -> list[str]:
    """Return the lines of comment at the top of a file of options, without the command that comes first."""
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    top = []
    for line in lines:
        if not line.startswith("#"):
            break
        text = line[1:].strip()
        if not text.startswith(("@package", "python -m ")):
            top.append(text)
    return top


# ---- explanations of keys ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Key:
    """A key of a composed configuration: its value as one would write it, and what its dataclass says of it."""

    key: str
    value: str
    comment: str
    annotation: str
    choices: EnumMeta | None

    def row(self) -> tuple[str, str]:
        words = f" ({', '.join(_members(self.choices))})" if self.choices else ""
        return f"{self.key}={self.value}", f"{self.comment}{words}"


def _all(node: DictConfig, groups: Mapping[str, Sequence[str]], width: int) -> Iterator[str]:
    yield "Groups and their options:"
    yield from described([(group, ", ".join(names)) for group, names in groups.items()], width, indent="  ")
    yield ""
    yield "Every key, with the value that it has here:"
    own = [key for key in _described(node) if "." not in key.key and key.key not in SCHEMAS]
    yield from described([key.row() for key in own if key.comment], width, indent="  ")
    for group in SCHEMAS:
        yield ""
        yield f"{group}: {_about_group(group)}"
        rows = [key.row() for key in _described(node[group], f"{group}.")]
        yield from described(rows or [("", f"this option has no keys; --list {group}")], width, indent="  ")


def _topic(
    node: DictConfig,
    topic: str,
    groups: Mapping[str, Sequence[str]],
    chosen: Mapping[str, str],
    words: Sequence[str],
    width: int,
) -> Iterator[str]:
    if topic in groups:
        yield f"{topic}: {_about_group(topic)}"
        option = chosen[topic]
        if option:
            yield from textwrap.wrap(f"{topic}={option}: {_about_option(topic, option, words)}", width)
        if len(groups[topic]) > 1:
            yield from textwrap.wrap(f"--list {topic} describes {', '.join(groups[topic])}", width)
        if topic not in SCHEMAS:
            return
        yield ""
    inner = OmegaConf.select(node, topic) if OmegaConf.is_missing(node, topic) is False else None
    if isinstance(inner, DictConfig) and is_dataclass(OmegaConf.get_type(inner)):
        yield from described([_in_detail(key) for key in _described(inner, f"{topic}.")], width, indent="  ")
        return
    (key,) = [key for key in _described(node) if key.key == WRITTEN.get(topic, topic)]
    yield f"{key.key}={key.value}"
    yield from textwrap.wrap(_in_detail(key)[1], width, initial_indent="  ", subsequent_indent="  ")
    if key.choices:
        comments = comments_of(key.choices, above=False)
        yield from described([(name, comments.get(name, "")) for name in _members(key.choices)], width, indent="    ")
    if topic in _OBJECTS:
        yield from textwrap.wrap(_OBJECTS[topic].all(), width, initial_indent="  ", subsequent_indent="  ")


def _in_detail(key: _Key) -> tuple[str, str]:
    """Return the row of a key with the type of its value."""
    of_type = "" if key.choices or key.annotation == "Any" else f" [{key.annotation}]"
    return key.row()[0], f"{key.row()[1]}{of_type}"


def _members(choices: EnumMeta) -> list[str]:
    """Return the names of an enumeration's members, without their aliases."""
    members: dict[str, Any] = dict(choices.__members__)
    return [name for name, member in members.items() if member.name == name]


def _chosen_option(group: str, overrides: Sequence[str], words: Sequence[str]) -> str:
    """Return the option of a group that these overrides choose, else that of train.yaml; nothing if there is none."""
    own = [override.partition("=")[2] for override in overrides if key_of(override) == group]
    if own:
        return own[-1]
    defaults: Any = OmegaConf.load(CONF / "train.yaml").defaults
    of_group = [entry[group] for entry in defaults if isinstance(entry, DictConfig) and group in entry]
    return str(of_group[0]) if of_group and of_group[0] is not None else ""


def _keys(node: DictConfig) -> Iterator[str]:
    own = {own.name for own in fields(RunConfig) if not own.metadata.get("omegaconf_ignore")}
    yield from (key for key in dotted_keys(node) if key.partition(".")[0] in own)


def _described(node: DictConfig, prefix: str = "") -> Iterator[_Key]:
    """Yield the keys of a section, with those of sections inside it."""
    schema: Any = OmegaConf.get_type(node)
    comments = comments_of(schema)
    types = {own.name: str(own.type) for own in fields(schema) if not own.metadata.get("omegaconf_ignore")}
    for name, annotation in types.items():
        inner = child(node, name)
        if isinstance(inner, DictConfig) and is_given(inner) and is_dataclass(OmegaConf.get_type(inner)):
            yield from _described(inner, f"{prefix}{name}.")
            continue
        value = written(inner) if OmegaConf.is_interpolation(node, name) else _plain(node, name)
        choices = _enum_of(annotation, schema)
        key = WRITTEN.get(f"{prefix}{name}", f"{prefix}{name}")
        yield _Key(key, value, comments.get(name, ""), annotation.replace(" | None", " or null"), choices)


def _plain(node: DictConfig, name: str) -> str:
    if OmegaConf.is_missing(node, name):
        return "(required)"
    value = node[name]
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value, resolve=False)
    return spelt(getattr(value, "name", value))


def _enum_of(annotation: str, schema: type) -> EnumMeta | None:
    """Return the enumeration that a field's annotation names, wherever in the class' bases it was declared."""
    name = annotation.partition(" |")[0]
    for base in schema.__mro__:
        found = getattr(inspect.getmodule(base), name, None) if name.isidentifier() else None
        if isinstance(found, EnumMeta):
            return found
    return None


def _sentence(text: str) -> str:
    """Return the first sentence of a text."""
    end = text.find(". ")
    return text if end < 0 else text[: end + 1]
