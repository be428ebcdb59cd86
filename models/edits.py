"""Edits of a built model as plain data: the form of `model.edits`. Strings only; `trainer.job.edits` makes the edits.

An item is a mapping with one key, the verb of the library: `{replace: {at: hidden1, with: {_target_: Dense, ...}}}`.
The argument that a verb mostly has alone may stand for all: `{freeze: backbone/*}` is `{freeze: {layers: backbone/*}}`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nameplate.naming.keras_objects import TARGET
from nameplate.naming.names import did_you_mean

LAYER = f"{{{TARGET}: keras.layers.Dense, units: 8, name: NAME}}"


@dataclass(frozen=True)
class Form:
    """What the value of an argument may be."""

    noun: str
    fits: Callable[[Any], bool]


@dataclass(frozen=True)
class Verb:
    """The arguments of an edit."""

    takes: Mapping[str, Form]
    example: str
    needs: Sequence[str] = ()
    one_of: Sequence[str] = ()  # of these at least one is needed
    short: str = ""  # the argument that a value stands for which is not a mapping of arguments
    whole: bool = field(default=False)  # whether a mapping, too, stands for the argument `short`

    def arguments(self, given: Any) -> dict[str, Any]:
        """Return what an item gives the verb, by argument."""
        if self.short and (self.whole or not isinstance(given, Mapping)):
            return {self.short: given}
        return dict(given)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _are_texts(value: Any) -> bool:
    return _is_text(value) or (isinstance(value, list) and bool(value) and all(map(_is_text, value)))


def _is_count(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_map(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(map(_is_text, value)) and all(map(fits, value.values()))


def _is_rule(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 2 or not all(map(_is_text, value)):
        return False
    try:
        re.compile(value[0])
    except re.error:
        return False
    return True


def _are_renames(value: Any) -> bool:
    rules = isinstance(value, list) and bool(value) and all(map(_is_rule, value))
    return rules or _is_map(value, _is_text)


def _is_layer(value: Any) -> bool:
    return isinstance(value, Mapping) and _is_text(value.get(TARGET)) and all(map(_is_text, value))


def _are_layers(value: Any) -> bool:
    return _is_layer(value) or (isinstance(value, list) and bool(value) and all(map(_is_layer, value)))


def _is_rate(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


_NAME = Form("the name of a layer", _is_text)
_NAMES = Form("the name of a layer, or a list of names", _are_texts)
_PATTERNS = Form("a pattern of names, or a list of patterns", _are_texts)
_LAYERS = Form(f"a layer, {LAYER}, or a list of layers in a chain", _are_layers)
_TEXT = Form("a name", _is_text)
_REBUILD = Form("true, or names of the consumers that get new weights", lambda x: isinstance(x, bool) or _are_texts(x))

VERBS: dict[str, Verb] = {
    "rename": Verb(
        {"to": Form(r"{old: new}, or rules [[PATTERN, REPLACEMENT], ...] of valid regular expressions", _are_renames)},
        "{rename: {stem_conv: stem}}",
        needs=["to"],
        short="to",
        whole=True,
    ),
    "replace": Verb(
        {
            "at": Form(
                "the name of a layer, or the first and the last of a block",
                lambda value: _is_text(value) or (_are_texts(value) and len(value) == 2),
            ),
            "with": _LAYERS,
            "rebuild": _REBUILD,
        },
        f"{{replace: {{at: hidden1, with: {LAYER}}}}}",
        needs=["at", "with"],
    ),
    "insert": Verb(
        {
            "layer": _LAYERS,
            "after": _NAME,
            "before": _NAME,
            "output": Form("the index of an output, from 0", lambda value: _is_count(value, 0)),
            "rebuild": _REBUILD,
        },
        f"{{insert: {{after: hidden1, layer: {LAYER}}}}}",
        needs=["layer"],
        one_of=["after", "before"],
    ),
    "remove": Verb(
        {"layers": _NAMES, "keep": _NAME, "rebuild": _REBUILD}, "{remove: drop}", needs=["layers"], short="layers"
    ),
    "attach": Verb(
        {
            "after": _NAME,
            "heads": Form("{output: units}", lambda value: _is_map(value, _is_count)),
            "hidden": Form("a list of units", lambda value: isinstance(value, list) and all(map(_is_count, value))),
            "dropout": Form("a rate from 0 to below 1", _is_rate),
            "activation": Form("the name of an activation", _is_text),
            "name": _TEXT,
        },
        "{attach: {after: pool, heads: {label: 10}}}",
        short="after",
    ),
    "extract": Verb(
        {
            "outputs": Form(
                "the name of a layer, a list of names, or {output: name}",
                lambda value: _are_texts(value) or _is_map(value, _is_text),
            ),
            "inputs": _NAMES,
            "name": _TEXT,
        },
        "{extract: pool}",
        needs=["outputs"],
        short="outputs",
    ),
    "freeze": Verb({"layers": _PATTERNS}, "{freeze: backbone/*}", needs=["layers"], short="layers"),
    "unfreeze": Verb({"layers": _PATTERNS}, "{unfreeze: backbone/*}", needs=["layers"], short="layers"),
}


def edit_problems(edits: Sequence[Any]) -> Iterator[str]:
    """Yield what is wrong with the form of `model.edits`; what the model lacks is found when it is built."""
    for place, item in enumerate(edits):
        key = f"model.edits[{place}]"
        if not isinstance(item, Mapping) or len(item) != 1:
            what = f"has {len(item)} keys" if isinstance(item, Mapping) else "is not a mapping"
            yield f"{key}: {_shown(item)} {what}; an edit has one key, its verb: {VERBS['freeze'].example}"
            continue
        ((name, given),) = item.items()
        if name not in VERBS:
            yield f"{key}: no edit is called {name!r}.{did_you_mean(str(name), VERBS)} There are {', '.join(VERBS)}"
        else:
            yield from _verb_problems(f"{key}.{name}", VERBS[name], given)


def _verb_problems(key: str, verb: Verb, given: Any) -> Iterator[str]:
    if not verb.short and not isinstance(given, Mapping):
        yield f"{key}: {_shown(given)} is not a mapping of {', '.join(verb.takes)}; e.g. {verb.example}"
        return
    arguments = verb.arguments(given)
    for name, value in arguments.items():
        inner = key if verb.short == name and not _is_named(verb, given) else f"{key}.{name}"
        if name not in verb.takes:
            near = did_you_mean(str(name), verb.takes)
            yield f"{key}: there is no {name!r}.{near} It takes {', '.join(verb.takes)}; e.g. {verb.example}"
        elif not verb.takes[name].fits(value):
            yield f"{inner}: {_shown(value)} is not {verb.takes[name].noun}; e.g. {verb.example}"
    missing = [name for name in verb.needs if name not in arguments]
    if verb.one_of and not any(name in arguments for name in verb.one_of):
        missing.append(" or ".join(verb.one_of))
    if missing:
        yield f"{key}: {_shown(given)} lacks {', '.join(missing)}; e.g. {verb.example}"


def _is_named(verb: Verb, given: Any) -> bool:
    return isinstance(given, Mapping) and not verb.whole


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
