"""What is wrong with the overrides of a command line, each on its own, and what was probably meant."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from nameplate.naming.names import nearest

Composer = Callable[[Sequence[str]], tuple[Any | None, str]]

_SWEEP = ("-m", "--multirun", "hydra.mode=MULTIRUN")
# Hydra's options whose argument is the next word, which is no override then.
_WITH_ARGUMENT = frozenset(
    ["--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--info"]
)


# What other libraries call a setting that has another name here.
_ELSEWHERE = {
    "batch_size": "fit.global_batch",
    "batch": "fit.global_batch",
    "devices": "strategy.replicas",
    "num_gpus": "strategy.replicas",
    "max_epochs": "fit.epochs",
    "max_steps": "fit.steps",
    "steps_per_execution": "fit.steps_per_loop",
    "mixed_precision": "fit.precision",
    "jit_compile": "fit.xla",
    "name": "run",
    "output_dir": "runs",
}

_FLAGS = (
    "--help", "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run", "--multirun",
    "--shell-completion", "--config-path", "--config-name", "--config-dir", "--experimental-rerun", "--info",
)  # fmt: skip

_OTHER_CONF = "the configuration is conf/train.yaml; hydra.searchpath=[...] or --config-dir adds options of your own"
_REFUSED = {
    "--experimental-rerun": "not taken: it unpickles a file, which runs what is in it",
    "--config-path": _OTHER_CONF,
    "-cp": _OTHER_CONF,
    "--config-name": _OTHER_CONF,
    "-cn": _OTHER_CONF,
}

_SHOWING = frozenset(
    ["--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc"]
)


def sweeps(arguments: Iterable[str]) -> bool:
    """Say whether a command line asks for several jobs."""
    return any(each in _SWEEP for each in arguments)


def shows(arguments: Iterable[str]) -> bool:
    """Say whether a command line only asks for words: help, the configuration, completion."""
    return any(each.partition("=")[0] in _SHOWING for each in arguments)


def flag_problems(arguments: Iterable[str]) -> list[str]:
    """Return the options with two dashes that there are not: most likely a setting is meant, which has none."""
    flags = [each.partition("=")[0] for each in arguments if each.startswith("-")]
    given = [each for each in arguments if each.startswith("--") and len(each) > 2]
    unknown = [each for each in given if not any(flag.startswith(each.partition("=")[0]) for flag in _FLAGS)]
    return [
        f"{each}: no such option; --hydra-help lists them. A setting is written without dashes, e.g. fit.epochs=3"
        for each in unknown
    ] + [
        f"{flag}: {reason}"
        for flag in flags
        for refused, reason in _REFUSED.items()
        if flag == refused or (flag[2:] and refused.startswith(flag) and not "--config-dir".startswith(flag))
    ]


def null_problems(arguments: Iterable[str], options: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the choices of nothing, for which Hydra has no words."""
    chosen = [(each, key_of(each)) for each in arguments if "=" in each and "null" in each.partition("=")[2].split(",")]
    return [
        f"{each}: no option; leave {group} out, or take one of {', '.join(options[group])}"
        for each, group in chosen
        if group in options
    ]


def explain(arguments: Sequence[str], options: Mapping[str, Sequence[str]], compose: Composer) -> list[str]:
    """Return a problem for each override of a command line that cannot be used, with the nearest that can.

    `options` maps each group to its options; `compose` builds a configuration from overrides alone and returns it,
    or None and the reason. Group choices come first, because they decide which keys exist.
    """
    overrides = overrides_of(arguments)
    choices = [each for each in overrides if key_of(each) in options]
    values = [each for each in overrides if key_of(each) not in options]
    wrong = {each: _choice_problem(each, options, several=sweeps(arguments)) for each in choices}
    found = [problem for problem in wrong.values() if problem]
    sound = [each for each in choices if not wrong[each]]
    base, reason = compose(sound)
    if base is None:
        return found or ([reason] if reason else [])
    known = sorted({*dotted_keys(base), *options, "hydra.searchpath"})
    required = _missing(base) - {key_of(each) for each in values}
    for each in values:
        _, reason = compose([*sound, each])
        section, _, name = key_of(each).rpartition(".")
        if reason and section in known and _is_free(_node(base, section)):
            found.append(f"{each}: write '{section}={{{name}: {each.partition('=')[2]}}}'")
        elif reason:
            found.append(_value_problem(each, known, reason, required=required))
    return found


def overrides_of(arguments: Sequence[str]) -> list[str]:
    """Return the arguments that are no options and belong to none."""
    before = ["", *arguments]
    return [
        each
        for each, last in zip(arguments, before, strict=False)
        if not each.startswith("-") and ("=" in each or last not in _WITH_ARGUMENT)
    ]


def _choice_problem(override: str, options: Mapping[str, Sequence[str]], *, several: bool) -> str:
    group, _, chosen = override.partition("=")
    group = group.lstrip("+~")
    if override.startswith("~"):
        return ""
    if not chosen:
        return f"{override}: no option given; write {group}={options[group][0]}. There are {', '.join(options[group])}"
    wrong = [each for each in chosen.split(",") if each not in options[group]]
    if not wrong:
        return "" if several or "," not in chosen else _ambiguous(override)
    near = nearest(wrong[0], options[group])
    meant = f" Did you mean {group}={near[0]}?" if near else ""
    return f"{group}={wrong[0]}: no such option.{meant} There are {', '.join(options[group])}"


def _value_problem(override: str, known: Sequence[str], reason: str, *, required: Collection[str]) -> str:
    key = key_of(override)
    if "=" not in override:
        return f"{override}: not an override; write key=value, e.g. fit.epochs=3"
    if reason.startswith("Ambiguous value"):
        return _ambiguous(override, "; or write a list as [1,2], and a text with commas in quotes")
    if key in known:
        return reason if reason.startswith(key) else f"{key}: {reason}"
    return no_such_key(key, known, required=required)


def _ambiguous(override: str, otherwise: str = "") -> str:
    return f"{override}: several values; add -m for a sweep, a job for each{otherwise}"


def no_such_key(key: str, known: Sequence[str], *, required: Collection[str] = ()) -> str:
    """Return the problem of a dotted key that is not among the known ones, with what there is instead.

    A `required` key beside it that nobody gave is what was meant before any other.
    """
    section = key.rpartition(".")[0]
    siblings = [each for each in known if each.rpartition(".")[0] == section]
    near = [each for each in siblings if each in required]
    near += [_ELSEWHERE[key]] if key in _ELSEWHERE else nearest(key, known, limit=2) or _same_ending(key, known)
    meant = f" Did you mean {' or '.join(list(dict.fromkeys(near))[:2])}?" if near else ""
    exists = f" {section or 'At the top'} has {', '.join(each.rpartition('.')[2] for each in siblings)}"
    return f"{key}: no such key.{meant}{exists if siblings else ''}"


def key_of(override: str) -> str:
    """Return the dotted key of an override, or the group of a choice."""
    return override.partition("=")[0].lstrip("+~").partition("@")[0]


def _same_ending(key: str, known: Sequence[str]) -> list[str]:
    """Return keys that end like this one, or whose initials it is: `lr` for `optimizer.learning_rate`."""
    last = key.rpartition(".")[2]
    ends = {each.rpartition(".")[2]: each for each in reversed(known)}
    short = [each for end, each in ends.items() if "_" in end and last == "".join(word[:1] for word in end.split("_"))]
    return short or [ends[each] for each in nearest(last, ends)]


def _missing(node: Any) -> set[str]:
    """Return the keys of a section, dotted, whose value is required and not there."""
    found = set()
    for key in dotted_keys(node):
        section, _, name = key.rpartition(".")
        if _node(node, section)._get_node(name)._is_missing():
            found.add(key)
    return found


def _node(node: Any, section: str) -> Any:
    """Return a section by its dotted key; the empty key is all of it."""
    for each in filter(None, section.split(".")):
        node = node._get_node(each)
    return node


def _is_free(node: Any) -> bool:
    """Say whether a node is an empty mapping, whose keys are the user's own."""
    return hasattr(node, "keys") and not node._is_none() and not node._is_missing() and not len(node)


def dotted_keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Yield every key of a nested mapping, sections and values both, joined with dots."""
    for key in node:
        yield f"{prefix}{key}"
        child = node._get_node(key)
        if hasattr(child, "keys") and not child._is_none() and not child._is_missing():
            yield from dotted_keys(child, f"{prefix}{key}.")
