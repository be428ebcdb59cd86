"""YAML of a stored configuration as plain data, within bounds: no aliases, no tags, no interpolation.

Someone else may have written it. Nine levels of aliases grow to gigabytes, thousands of levels of nesting overflow a
stack, and `${oc.env:SECRET}` would be looked up in this process: so a text is measured before it is parsed, and what
stands in `${...}` stays text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trainer.config.base import ConfigError

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
