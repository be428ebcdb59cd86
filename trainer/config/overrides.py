"""The overrides of a command line: what is wrong with each one, and what was probably meant."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from nameplate.naming.names import nearest
from trainer.config.hydra_private import child, is_given

Composer = Callable[[Sequence[str]], tuple[Any | None, str]]

_SWEEP = ("-m", "--multirun", "hydra.mode=MULTIRUN")
# Hydra's options whose argument is the next word, which is not an override.
_WITH_ARGUMENT = frozenset(
    ["--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--info"]
)


# Names that other libraries use for our settings.
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
    "--help", "--list", "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run", "--multirun",
    "--shell-completion", "--config-path", "--config-name", "--config-dir", "--experimental-rerun", "--info",
)  # fmt: skip

_OTHER_CONF = "the configuration is conf/train.yaml; hydra.searchpath=[...] or --config-dir adds options of your own"
_REFUSED = {
    "--experimental-rerun": "not accepted: it unpickles a file, which can run code",
    "--config-path": _OTHER_CONF,
    "-cp": _OTHER_CONF,
    "--config-name": _OTHER_CONF,
    "-cn": _OTHER_CONF,
}

_SHOWING = frozenset(
    ["--help", "-h", "--list", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc"]
)


def sweeps(arguments: Iterable[str]) -> bool:
    """Say whether a command line asks for several jobs."""
    return any(argument in _SWEEP for argument in arguments)


def shows(arguments: Iterable[str]) -> bool:
    """Say whether a command line only prints: help, the configuration, completion."""
    return any(argument.partition("=")[0] in _SHOWING for argument in arguments)


def flag_problems(arguments: Iterable[str]) -> list[str]:
    """Return the options that do not exist, most likely settings with dashes, and those that are refused."""
    flags = [word.partition("=")[0] for word in arguments if word.startswith("-")]
    long = [word for word in arguments if word.startswith("--") and len(word) > 2]
    unknown = [word for word in long if not any(flag.startswith(word.partition("=")[0]) for flag in _FLAGS)]
    return [
        f"{word}: no such option; --help lists them. A setting is written without dashes, e.g. fit.epochs=3"
        for word in unknown
    ] + [
        f"{flag}: {reason}"
        for flag in flags
        for refused, reason in _REFUSED.items()
        if flag == refused or (flag[2:] and refused.startswith(flag) and not "--config-dir".startswith(flag))
    ]


# Options of Hydra that need a word after them, which may also follow a `=`.
_WORDS_OF = {"--cfg": ("job", "hydra", "all"), "-c": ("job", "hydra", "all")}
_SHORT = frozenset(["-h", "-c", "-p", "-r", "-m", "-i", "-sc", "-cp", "-cn", "-cd"])


def _bad_flags(arguments: Sequence[str]) -> Iterator[str]:
    """Yield what Hydra's own parser would answer with its usage: short options, and options without their word."""
    for word, after in zip(arguments, [*arguments[1:], ""], strict=False):
        flag, equals, value = word.partition("=")
        if re.fullmatch(r"-[^-].*", word) and flag not in _SHORT and not re.fullmatch(r"-[c].+", word):
            yield f"{word}: no such option; --help lists them"
        elif flag in _WORDS_OF and (value if equals else after) not in _WORDS_OF[flag]:
            yield f"{flag}: write {' or '.join(f'{flag} {of}' for of in _WORDS_OF[flag])}"
        elif equals and flag in ("-m", "--multirun", "-r", "--run", "--resolve"):
            yield f"{word}: {flag} takes no value"
    if "--resolve" in arguments and not {"--cfg", "-c", "--info", "-i"} & set(arguments):
        yield "--resolve: only with --cfg job, which then shows what ${...} stands for"


def form_problems(arguments: Sequence[str], options: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the problems of how overrides are written, for which Hydra's own messages are no help."""
    problems = [(word, _form_problem(word, options)) for word in overrides_of(arguments)]
    return [*_bad_flags(arguments), *(f"{word}: {problem}" for word, problem in problems if problem)]


def _form_problem(word: str, options: Mapping[str, Sequence[str]]) -> str:
    written, equals, value = word.partition("=")
    key = key_of(word)
    sign = written[: len(written) - len(written.lstrip("+~"))]
    if not key:
        return "not an override; write key=value, e.g. fit.epochs=3"
    if equals and (written != written.rstrip() or (value[:1].isspace() and value.strip())):
        return f"no spaces around the '='; write {written.strip()}={value.strip()}"
    if "@" in written and key in options:
        return f"an option cannot be moved to another place; write {key}={value}"
    if sign == "~" and key in options and key not in _WHOLE:
        return f"every run has a {key}; choose another with {key}=OPTION, one of {', '.join(options[key])}"
    if key not in options:
        group = key.partition(".")[0]
        whole = group in options and group in _WHOLE
        return f"{group} is chosen as a whole, {group}={options[group][0]}, and has no keys" if whole else ""
    if "null" in value.split(","):
        return f"null is not an option; leave {key} out, or choose one of {', '.join(options[key])}"
    if sign and (key not in _WHOLE or sign == "++"):
        return f"every run has a {key}; choose another without the {sign}: {key}={value}"
    if _NUMBER.fullmatch(value):
        return f"no such option. There are {', '.join(options[key])}"
    return ""


_WHOLE = ("experiment", "debug")  # groups of whole configurations, none of which is chosen by default
_NUMBER = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?|true|false", re.IGNORECASE)


def in_words(key: str, reason: str) -> str:
    """Return a reason of Hydra's or OmegaConf's about a value as one would say it."""
    for pattern, said in _REASONS.items():
        if found := re.search(pattern, reason):
            return said.format(*found.groups(), key=key, sweep=_SWEEPING)
    return reason


_SWEEPING = "several values; add -m for a sweep with a job for each"
_KINDS = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}
_REASONS = {
    **{
        rf"Value (.+) of type '\w+' could not be converted to {kind}": f"{{0}} is not {said}"
        for kind, said in _KINDS.items()
    },
    r"Value (.+) is not a valid bool": "{0} is neither true nor false",
    r"Invalid value (.+), expected one of \[(.+)\]": "{0} is none of {1}",
    r"Invalid value assigned: (\w+) is not a ListConfig, list or tuple": "not a list; write {key}=[a,b]",
    r"Invalid type assigned: (\w+) is not a subclass of \w+\. value: (.+)": (
        "{1} cannot take the place of its keys; --help {key} lists them"
    ),
    r"field '[^']+' is not Optional": "null is not possible here",
    r"Could not append to config\. An item is already at": "exists already; write it without the +",
    r"Sweep parameters .* requires --multirun": "{sweep}",
    r"LexerNoViableAltException": "a quote or a bracket is not closed",
    r"Multiple values for (\w+)\.": "chosen more than once; choose one",
}


def explain(arguments: Sequence[str], options: Mapping[str, Sequence[str]], compose: Composer) -> list[str]:
    """Return a problem for each override of a command line that cannot be used, with the nearest that can.

    `options` maps each group to its options; `compose` returns the configuration that overrides give, or None and the
    reason. Group choices are checked first, because they decide which keys exist.
    """
    overrides = overrides_of(arguments)
    choices = [override for override in overrides if key_of(override) in options and "={" not in override]
    values = [override for override in overrides if override not in choices]
    wrong = {choice: _choice_problem(choice, options, several=sweeps(arguments)) for choice in choices}
    problems = [problem for problem in wrong.values() if problem]
    sound = [choice for choice in choices if not wrong[choice]]
    base, reason = compose(sound)
    if base is None:
        return problems or ([reason] if reason else [])
    known = sorted({*dotted_keys(base), *options, "hydra.searchpath"})
    required = _missing(base) - set(map(key_of, values))
    for override in values:
        _, reason = compose([*sound, override])
        section, _, name = key_of(override).rpartition(".")
        if reason and section in known and _is_free(_node(base, section)):
            problems.append(f"{override}: write '{section}={{{name}: {override.partition('=')[2]}}}'")
        elif reason:
            problems.append(_value_problem(override, known, reason, required=required))
    return problems


def overrides_of(arguments: Sequence[str]) -> list[str]:
    """Return the arguments that are neither options nor the arguments of one."""
    return [
        word
        for word, before in zip(arguments, ["", *arguments], strict=False)
        if not word.startswith("-") and ("=" in word or before not in _WITH_ARGUMENT)
    ]


def _choice_problem(override: str, options: Mapping[str, Sequence[str]], *, several: bool) -> str:
    group, _, chosen = override.partition("=")
    group = group.lstrip("+~")
    if override.startswith("~"):
        return ""
    if not chosen:
        return f"{override}: no option given; write {group}={options[group][0]}. There are {', '.join(options[group])}"
    wrong = [option for option in chosen.split(",") if option not in options[group]]
    if not wrong:
        return "" if several or "," not in chosen else _ambiguous(override)
    near = nearest(wrong[0], options[group])
    meant = f" Did you mean {group}={near[0]}?" if near else ""
    return f"{group}={wrong[0]}: no such option.{meant} There are {', '.join(options[group])}"


def _value_problem(override: str, known: Sequence[str], reason: str, *, required: Collection[str]) -> str:
    key = key_of(override)
    if override.startswith("~") and key in known:
        return f"{override}: the key cannot be removed; leave it out for its default"
    if "=" not in override:
        return f"{override}: not an override; write key=value, e.g. fit.epochs=3"
    if reason.startswith("Ambiguous value"):
        return _ambiguous(override, "; or write a list as [1,2], and quote a text with commas")
    if inner := re.match(rf"({re.escape(key)}\.[\w.]+): Key '", reason):
        return no_such_key(inner[1], known)
    if key in known and reason.startswith(f"{key}."):
        return reason
    if key in known:
        return f"{key}: {in_words(key, reason.removeprefix(f'{key}: '))}"
    return no_such_key(key, known, required=required)


def _ambiguous(override: str, otherwise: str = "") -> str:
    return f"{override}: {_SWEEPING}{otherwise}"


def no_such_key(key: str, known: Sequence[str], *, required: Collection[str] = ()) -> str:
    """Return the problem of an unknown dotted key, with the known ones.

    A `required` key of the same section that is missing is suggested first.
    """
    section = key.rpartition(".")[0]
    siblings = [other for other in known if other.rpartition(".")[0] == section]
    near = [other for other in siblings if other in required]
    near += [_ELSEWHERE[key]] if key in _ELSEWHERE else nearest(key, known, limit=2) or _same_ending(key, known)
    meant = f" Did you mean {' or '.join(list(dict.fromkeys(near))[:2])}?" if near else ""
    if not siblings:  # its section does not exist either
        section, siblings = "", [other for other in known if "." not in other]
    has = f"{section} has" if section else "At the top there are"
    return f"{key}: no such key.{meant} {has} {', '.join(other.rpartition('.')[2] for other in siblings)}"


def key_of(override: str) -> str:
    """Return the dotted key of an override, or the group of a choice."""
    return override.partition("=")[0].lstrip("+~").partition("@")[0]


def _same_ending(key: str, known: Sequence[str]) -> list[str]:
    """Return keys that end like this one, or whose initials it is: `lr` for `optimizer.learning_rate`."""
    last = key.rpartition(".")[2]
    by_end = {other.rpartition(".")[2]: other for other in reversed(known)}
    initials = {end: "".join(word[:1] for word in end.split("_")) for end in by_end if "_" in end}
    short = [by_end[end] for end, letters in initials.items() if letters == last]
    return short or [by_end[end] for end in nearest(last, by_end)]


def _missing(node: Any) -> set[str]:
    """Return the dotted keys of a section whose value is required and missing."""
    missing = set()
    for key in dotted_keys(node):
        section, _, name = key.rpartition(".")
        if OmegaConf.is_missing(_node(node, section), name):
            missing.add(key)
    return missing


def _node(node: Any, section: str) -> Any:
    """Return a section by its dotted key; the empty key is the whole."""
    for part in filter(None, section.split(".")):
        node = child(node, part)
    return node


def _is_free(node: Any) -> bool:
    """Say whether a node is an empty mapping, which takes any key."""
    return hasattr(node, "keys") and is_given(node) and not len(node)


def dotted_keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of a nested mapping, of sections and of values."""
    for key in node:
        yield f"{prefix}{key}"
        inner = child(node, key)
        if hasattr(inner, "keys") and is_given(inner):
            yield from dotted_keys(inner, f"{prefix}{key}.")


_BARE = re.compile(r"[A-Za-z_./-][\w./ @:?&|-]*\Z", re.ASCII)  # text that Hydra's grammar reads without quotes
_WORDS = ("null", "true", "false", "nan", "inf")


def spelt(value: Any) -> str:
    """Return a value in the grammar of Hydra's overrides."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{spelt(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(spelt, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    text = str(value)
    if _BARE.match(text) and text.casefold() not in _WORDS and text == text.strip():
        return text
    escaped = re.sub(r"(\\+)(?='|\Z)", r"\1\1", text).replace("'", "\\'")  # a backslash escapes only before a quote
    return f"'{escaped}'"
