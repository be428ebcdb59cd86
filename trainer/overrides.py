"""What is wrong with the overrides of a command line, each on its own, and what was probably meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from models.names import nearest

Composer = Callable[[Sequence[str]], tuple[Any | None, str]]


def explain(overrides: Iterable[str], options: Mapping[str, Sequence[str]], compose: Composer) -> list[str]:
    """Return a problem for each override that cannot be used, with the nearest key or option that can.

    `options` maps each group to its options; `compose` builds a configuration from overrides alone and returns it,
    or None and the reason. Group choices come first, because they decide which keys exist.
    """
    choices: list[str] = []
    values: list[str] = []
    for override in overrides:
        if not override.startswith("-"):
            (choices if _key(override) in options else values).append(override)
    found = [problem for each in choices if (problem := _choice_problem(each, options))]
    sound = [each for each in choices if not _choice_problem(each, options)]
    base, reason = compose(sound)
    if base is None:
        return found or ([reason] if reason else [])
    known = sorted({*_dotted(base), *options})
    for each in values:
        _, reason = compose([*sound, each])
        if reason:
            found.append(_value_problem(each, known, reason))
    return found


def _choice_problem(override: str, options: Mapping[str, Sequence[str]]) -> str:
    group, _, chosen = override.partition("=")
    group = group.lstrip("+~")
    wrong = [each for each in chosen.split(",") if each not in (*options[group], "null", "")]
    if not wrong or override.startswith("~"):
        return ""
    near = nearest(wrong[0], options[group])
    meant = f" Did you mean {group}={near[0]}?" if near else ""
    return f"{group}={wrong[0]}: no such option.{meant} There are {', '.join(options[group])}"


def _value_problem(override: str, known: Sequence[str], reason: str) -> str:
    key = _key(override)
    if "=" not in override:
        return f"{override}: not an override; write key=value, e.g. fit.epochs=3"
    if key in known:
        return reason if reason.startswith(key) else f"{key}: {reason}"
    near = nearest(key, known, limit=2) or _same_ending(key, known)
    meant = f" Did you mean {' or '.join(near)}?" if near else ""
    siblings = [each for each in known if each.rpartition(".")[0] == key.rpartition(".")[0]]
    exists = f" {key.rpartition('.')[0] or 'At the top'} has {', '.join(s.rpartition('.')[2] for s in siblings)}"
    return f"{key}: no such key.{meant}{exists if siblings else ''}"


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~").partition("@")[0]


def _same_ending(key: str, known: Sequence[str]) -> list[str]:
    """Return keys that end like this one, or whose initials it is: `lr` for `optimizer.learning_rate`."""
    last = key.rpartition(".")[2]
    ends = {each.rpartition(".")[2]: each for each in reversed(known)}
    short = [each for end, each in ends.items() if "_" in end and last == "".join(word[:1] for word in end.split("_"))]
    return short or [ends[each] for each in nearest(last, ends)]


def _dotted(node: Any, prefix: str = "") -> Iterator[str]:
    """Yield every key of a nested mapping, sections and values both, joined with dots."""
    for key in node:
        yield f"{prefix}{key}"
        child = node._get_node(key)
        if hasattr(child, "keys") and not child._is_none() and not child._is_missing():
            yield from _dotted(child, f"{prefix}{key}.")
