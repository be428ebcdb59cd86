"""What is wrong with a file of options, out of what Hydra says when it cannot compose it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence

from models.names import did_you_mean

_COMPOSING = re.compile(r"In '(?P<file>[^']+)': \w+ raised while composing config:")
_NO_KEY = re.compile(r"Key '(?P<key>[^']+)' (is )?not in '(?P<owner>\w+)'")
_NO_OPTION = re.compile(r"Could not find '(?P<group>[^']+)/(?P<option>[^'/]+)'")


def file_problem(
    key: str,
    lines: Sequence[str],
    *,
    options: Mapping[str, Sequence[str]],
    keys_of: Callable[[str], Collection[str]],
    lacks_schema: Callable[[str], str],
) -> str | None:
    """Return what is wrong with a file, and what would be right; None where no file is to blame.

    Args:
        key: the dotted key that Hydra's message tells, or nothing.
        lines: Hydra's message.
        options: of every group.
        keys_of: gives the keys of a dataclass of the configuration by its class's name.
        lacks_schema: gives what to say where a key belongs to no option's schema, by the class's name; or nothing.
    """
    missing = _NO_OPTION.search(lines[0]) if lines else None
    if missing is not None:
        return _no_option(missing["group"], missing["option"], options)
    composing = _COMPOSING.fullmatch(lines[0]) if len(lines) > 1 else None
    if composing is None:
        return None
    file, reason = f"{composing['file']}.yaml", lines[1]
    unknown = _NO_KEY.search(reason)
    if unknown is None:
        return f"{file}: {key}: {reason}" if key else f"{file}: {reason}"
    if unknown["key"] == file.partition("/")[0]:  # its values were put under its group's name
        return f"{file}: it changes several sections, and so its first line has to be  # @package _global_"
    known = keys_of(unknown["owner"])
    hint = did_you_mean(unknown["key"], known) or f" There are {', '.join(sorted(known))}" * bool(known)
    return f"{file}: {key}: no such key.{lacks_schema(unknown['owner']) or hint}"


def _no_option(group: str, option: str, options: Mapping[str, Sequence[str]]) -> str:
    there = options.get(group, ())
    has = f" There are {', '.join(there)}" if there else f" There is no group {group}"
    return f"{group}={option}: no such option, and a file asks for it.{did_you_mean(option, there)}{has}"
