"""A configuration written as the overrides of a command line that composes it again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from omegaconf import OmegaConf

from nameplate.section import ConfigError
from trainer.config.composing import run_config
from trainer.config.hydra_queries import tried
from trainer.config.run_config import RunConfig
from trainer.config.stored import OPTION, to_plain

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
