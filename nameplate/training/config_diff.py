"""Differences between the configuration that a checkpoint was saved under and the one that resumes it.

A harmless change is reported. One that would change what is computed is refused, unless `resume_changed` names it;
then it takes effect. Models with other names, which no setting can bridge, are detected by their names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nameplate.errors import NameplateError
from nameplate.naming.keras_objects import CALLBACKS, OBSERVING, TARGET

ABSENT = "(not there)"
_LONGEST = 80  # characters of a value that are shown
_OPTION = "._option_"

# Keys, or whole sections, that change no number that is trained, and why if it is not obvious.
_HARMLESS = {
    "run": "",
    "runs": "",
    "resume": "",
    "resume_changed": "",
    "dry_run": "",
    "before": "",
    "trust": "",
    "naming": "the names themselves are compared",
    "model.weights": "without effect: the run has begun",
    "init": "without effect: the run has begun",  # except for what is frozen, see below
    "log": "",
    "sweep": "",
    "checkpoint": "",
    "strategy": "any number of replicas gives the same numbers, to rounding",
    "data.resident": "",
    "data.check": "",
    "data.on_damaged": "the examples that are left out are compared",
    "fit.epochs": "",
    "fit.epochs_continue": "",  # a run keeps what it began with
    "fit.steps": "",
    "fit.steps_per_loop": "",
    "fit.validate_every": "",
    "fit.validation_batch": "",
    "fit.early_stopping": "",
    "fit.on_nan": "",
    "fit.max_rollbacks": "",
    "fit.xla": "the same numbers, to rounding",
}
_NOT_HARMLESS = ("strategy.sync_batch_norm", "init.freeze", "init.unfreeze")


class ConfigDiffError(NameplateError):
    """A run would resume with settings that change what it computes, and `resume_changed` does not name them."""


@dataclass(frozen=True)
class Change:
    """One setting with two values."""

    key: str
    old: Any  # as plain data; ABSENT if only the other side has it
    new: Any
    harmless: bool
    note: str = ""

    def __str__(self) -> str:
        old, new = _unlike(self.old, self.new)
        return f"{self.key}: {_short(old)} -> {_short(new)}" + (f"  ({self.note})" if self.note else "")


@dataclass(frozen=True)
class ConfigDiff:
    """All differences; `meant` are those that change the computation and are asked for."""

    changes: tuple[Change, ...]
    meant: tuple[Change, ...] = ()

    def touches(self, *keys: str) -> bool:
        """Say whether one of these keys or sections is changed on purpose."""
        return any(_within(change.key, keys) for change in self.meant)

    def replaces(self, group: str) -> bool:
        """Say whether another option of a group is chosen on purpose, e.g. `optimizer=sgd` instead of `adam`."""
        return any(change.key == group for change in self.meant)


def compare(old: Mapping[str, Any], new: Mapping[str, Any], *, defaults: Mapping[str, Any]) -> list[Change]:
    """Return the settings in which two configurations differ, as nested plain data, by key.

    A setting that the old one lacks and that has its default now is not a difference: an older version of the project
    did not have it.
    """
    before, after, usual = _flat(old), _flat(new), _flat(defaults)
    other = [key.removesuffix(_OPTION) for key in after if key.endswith(_OPTION) and before.get(key) != after[key]]
    found = []
    for key in dict.fromkeys([*after, *before]):
        was, now = before.get(key, ABSENT), after.get(key, ABSENT)
        if was == now or (key not in before and key in usual and usual[key] == now):
            continue
        if ABSENT in (was, now) and _within(key, other) and not (_matters(key) and [] not in (was, now)):
            continue  # the change of option, which has this setting or not, says it
        key = key.removesuffix(_OPTION)
        if _within(key, ["callbacks"]) and _only_observes(key, before, after):
            found.append(Change(key, was, now, harmless=True))
            continue
        found.append(_change(key, was, now, decays=after.get("schedule.decay", "constant") != "constant"))
    return found


_ADVICE = (
    "Set them back, choose another run=NAME (init=checkpoint takes the weights along), "
    "or resume all the same with resume_changed=[{keys}]"
)


def agree(changes: Sequence[Change], *, meant: Sequence[str], where: str, advice: str = _ADVICE) -> ConfigDiff:
    """Return the differences if every change is harmless or meant; `where` names the checkpoint.

    `advice` ends the error; it has `{keys}`, or `{names}` as Python's list, for what `resume_changed` would name.

    Raises:
        ConfigDiffError: with every change of the computation that is not in `meant`.
    """
    matter = [change for change in changes if not change.harmless]
    refused = [change for change in matter if not _within(change.key, meant)]
    if refused:
        count = "1 setting is" if len(refused) == 1 else f"{len(refused)} settings are"
        keys = [change.key for change in refused]
        raise ConfigDiffError(
            "\n".join(
                [
                    f"{count} not what {where} was trained with, and would change what is computed:",
                    *(f"  {change}" for change in refused),
                    advice.format(keys=",".join(keys), names=keys),
                ]
            )
        )
    return ConfigDiff(tuple(changes), tuple(matter))


def describe(diff: ConfigDiff, *, where: str) -> str:
    """Return every change, one a line; empty if there are none."""
    if not diff.changes:
        return ""
    return "\n".join([f"resuming with other settings than {where} has:", *(f"  {change}" for change in diff.changes)])


def _change(key: str, old: Any, new: Any, *, decays: bool) -> Change:
    of = [name for name in _HARMLESS if _within(key, [name])]
    if not of or _matters(key):
        return Change(key, old, new, harmless=False)
    note = _HARMLESS[of[0]]
    if key in ("fit.epochs", "fit.steps") and decays:
        note = "the learning rate follows the new length from here on"
    return Change(key, old, new, harmless=True, note=note)


def _only_observes(key: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Say whether a changed callback, before and after, is one of Keras' that changes no step."""
    name = ".".join(key.split(".")[:2])
    targets = [side.get(f"{name}.{TARGET}", side.get(name)) for side in (before, after)]
    return all(CALLBACKS.keras_class(target) in OBSERVING for target in targets if target is not None)


def _matters(key: str) -> bool:
    """Say whether a setting changes the computation although the rest of its section does not."""
    return _within(key, _NOT_HARMLESS)


def _within(key: str, sections: Iterable[str]) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return every value under its dotted key; a list is one value."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, Mapping):
            found[f"{prefix}{key}"] = value
    return found


def _unlike(old: Any, new: Any) -> tuple[Any, Any]:
    """Return two values; of long lists that begin or end alike, only the middle between `...`."""
    if not (isinstance(old, list) and isinstance(new, list)) or max(len(_dumped(old)), len(_dumped(new))) <= _LONGEST:
        return old, new
    least = min(len(old), len(new))
    begin = next((place for place in range(least) if old[place] != new[place]), least)
    end = next((place for place in range(least - begin) if old[-1 - place] != new[-1 - place]), least - begin)
    before, after = ["..."] * bool(begin), ["..."] * bool(end)
    return [*before, *old[begin : len(old) - end], *after], [*before, *new[begin : len(new) - end], *after]


def _short(value: Any) -> str:
    text = value if value == ABSENT else _dumped(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


@dataclass(frozen=True)
class Resets:
    """What of a checkpoint's state is not restored, or may be missing; by prefix of its names."""

    own: tuple[str, ...] = ()  # not restored: they keep the values of this process
    free: tuple[str, ...] = ()  # may be on one side only: what is new starts afresh, what is left over is ignored
    slots: bool = False  # slots may, too
    forget_slots: bool = False  # restore none: those of another optimizer mean something else, even under one name


def resets_for(diff: ConfigDiff) -> Resets:
    """Return which state of the checkpoint is discarded because of settings that were changed on purpose."""
    own, free = [], []
    if diff.touches("optimizer.learning_rate", "schedule") or diff.replaces("optimizer"):
        own.append("optimizer/learning_rate")
    if diff.touches("seed"):
        own.append("seeds/")
    updates = diff.touches("optimizer", "schedule", "fit.precision", "init", "model.edits")
    if updates:
        free.append("optimizer/")
    if diff.touches("model", "data", "seed"):
        free.append("seeds/")
    if diff.touches("model", "objective"):
        free.append("metrics/")
    return Resets(tuple(own), tuple(free), slots=updates, forget_slots=diff.replaces("optimizer"))
