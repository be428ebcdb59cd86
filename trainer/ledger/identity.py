"""Who a job is: a hash of the settings that decide its result."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xxhash import xxh3_128_hexdigest

LENGTH = 12  # hexadecimal digits: two of a million jobs share them with a chance of 2e-3

# How far, how often, where to and on what: nothing of it changes a number that is trained, or only by rounding.
WITHOUT_EFFECT = (
    "run",
    "runs",
    "resume",
    "resume_changed",
    "dry_run",
    "trust",
    "sweep",
    "log",
    "checkpoint",
    "strategy",
    "data.resident",
    "fit.steps_per_loop",
    "fit.validation_batch",
    "fit.xla",
)
# Of those sections, what does change it.
WITH_EFFECT = ("strategy.sync_batch_norm", "checkpoint.monitor", "checkpoint.mode")

SEED = "seed"


def settings_of(tree: Mapping[str, Any], *, distinct: Sequence[str] = ()) -> dict[str, Any]:
    """Return the settings of a configuration, nested plain data, that decide its result, by dotted key.

    `distinct` are further keys or sections, which tell jobs apart though they decide nothing.
    """
    flat = dict(_flat(tree))
    kept = (*WITH_EFFECT, *distinct)
    return {key: value for key, value in flat.items() if within(key, kept) or not within(key, WITHOUT_EFFECT)}


def parted(settings: Mapping[str, Any], *, usual: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings that say who a job is, and those that are as `usual`.

    A setting that a later version adds is as usual in the jobs of this one, which so keep their names.
    """
    own = {key: value for key, value in settings.items() if _text(value) != _text(usual.get(key, _ABSENT))}
    return own, {key: value for key, value in settings.items() if key not in own}


def identity(own: Mapping[str, Any]) -> str:
    """Return the name of the job that has these settings: the same settings, the same name."""
    text = json.dumps(own, sort_keys=True, separators=(",", ":"), default=str)
    return xxh3_128_hexdigest(text.encode())[:LENGTH]


def varying(jobs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the keys in which the settings of several jobs differ; a setting that one has not counts as a value."""
    found = list(jobs)
    keys = dict.fromkeys(key for settings in found for key in settings)
    return [key for key in keys if len({_text(settings.get(key, _ABSENT)) for settings in found}) > 1]


def differences(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, Any]]:
    """Return the settings that are one and the same over all old jobs, and another one over all new ones.

    Such jobs cannot be compared. A setting that varies on either side is a grid's; so is the seed. One that a side
    does not have belongs to the option of a group, which is told by itself.
    """
    found = {}
    for key in dict.fromkeys(key for settings in (*old, *new) for key in settings):
        before = {_text(settings.get(key, _ABSENT)) for settings in old}
        after = {_text(settings.get(key, _ABSENT)) for settings in new}
        if len(before) == len(after) == 1 and before != after and "" not in before | after and key != SEED:
            found[key] = (old[0][key], new[0][key])
    return found


def within(key: str, sections: Iterable[str]) -> bool:
    """Say whether a dotted key is one of these, or inside one of them."""
    return any(key == section or key.startswith(f"{section}.") for section in sections)


_ABSENT = object()


def _text(value: Any) -> str:
    return "" if value is _ABSENT else json.dumps(value, sort_keys=True, default=str)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yield every value with its dotted key; a list is one value, an empty mapping too."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
