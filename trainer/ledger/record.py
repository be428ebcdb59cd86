"""A job of a sweep: its identity, a hash of the settings that decide its result; and its record."""

from __future__ import annotations

import enum
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from xxhash import xxh3_128_hexdigest

from nameplate.checkpoint import plain_data
from nameplate.checkpoint.errors import DamagedError
from nameplate.data import targets
from nameplate.errors import NameplateError

LENGTH = 12  # hexadecimal digits: two of a million jobs share them with a chance of 2e-3

# How long, how often, where and on which devices: no trained number depends on these, except for rounding.
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
# The settings in those sections that results do depend on.
WITH_EFFECT = ("strategy.sync_batch_norm", "checkpoint.monitor", "checkpoint.mode")

SEED, FOLD = "seed", "data.fold"
REPEATED = (SEED, FOLD)  # settings whose values repeat one experiment: they make mean and spread


def settings_of(tree: Mapping[str, Any], *, distinct: Sequence[str] = ()) -> dict[str, Any]:
    """Return the settings of a nested plain configuration that decide its result, by dotted key.

    `distinct` are further keys or sections that make jobs different although no result depends on them.
    """
    flat = dict(_flat(tree))
    kept = (*WITH_EFFECT, *distinct)
    return {key: value for key, value in flat.items() if within(key, kept) or not within(key, WITHOUT_EFFECT)}


def parted(settings: Mapping[str, Any], *, usual: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings that identify a job, and those that have their default, `usual`.

    A setting that a later version adds has its default in the jobs of this one, which thus keep their names.
    """
    own = {key: value for key, value in settings.items() if _text(value) != _text(usual.get(key, _ABSENT))}
    return own, {key: value for key, value in settings.items() if key not in own}


def identity(own: Mapping[str, Any]) -> str:
    """Return the name of the job with these settings: the same settings, the same name."""
    text = json.dumps(own, sort_keys=True, separators=(",", ":"), default=str)
    return xxh3_128_hexdigest(text.encode())[:LENGTH]


def varying(jobs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the keys in which the settings of several jobs differ; a missing setting counts as a value."""
    jobs = list(jobs)
    keys = dict.fromkeys(key for settings in jobs for key in settings)
    return [key for key in keys if len({_text(settings.get(key, _ABSENT)) for settings in jobs}) > 1]


def differences(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, Any]]:
    """Return the settings with one value in all old jobs and another one in all new ones: `{key: (old, new)}`.

    Such jobs cannot be compared. A setting that varies on either side belongs to a grid, and so do the seed and the
    fold. One that a side lacks belongs to the option of a group, which is compared itself.
    """
    changed = {}
    for key in dict.fromkeys(key for settings in (*old, *new) for key in settings):
        before = {_text(settings.get(key, _ABSENT)) for settings in old}
        after = {_text(settings.get(key, _ABSENT)) for settings in new}
        if len(before) == len(after) == 1 and before != after and "" not in before | after and key not in REPEATED:
            changed[key] = (old[0][key], new[0][key])
    return changed


def within(key: str, sections: Iterable[str]) -> bool:
    """Say whether a dotted key is one of the sections, or inside one."""
    return any(key == section or key.startswith(f"{section}.") for section in sections)


_ABSENT = object()


def _text(value: Any) -> str:
    return "" if value is _ABSENT else json.dumps(value, sort_keys=True, default=str)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yield every value with its dotted key; a list or an empty mapping is one value."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


class PrunedError(NameplateError):
    """A job that is stopped early because others do better; `reached` are the fields of its record."""

    def __init__(self, reason: str, reached: Mapping[str, Any]) -> None:
        self.reached = reached
        super().__init__(reason)


class State(enum.StrEnum):
    """The state of a job."""

    planned = "planned"
    running = "running"
    done = "done"
    failed = "failed"
    interrupted = "interrupted"  # stopped from outside before it was done


@dataclass(frozen=True)
class JobRecord:
    """What is known about a job; times are ISO 8601 in UTC."""

    job: str  # its identity, and the name of its directory
    state: State
    overrides: tuple[str, ...]  # the command line of this job
    settings: Mapping[str, Any]  # that identify it: those that decide its result and are not the default
    usual: Mapping[str, Any] = field(default_factory=dict)  # the others that decide its result
    planned: str | None = None
    started: str | None = None  # the latest attempt
    ended: str | None = None
    seconds: float = 0.0  # all attempts together
    attempts: int = 0
    host: str | None = None
    pid: int | None = None
    exit_code: int | None = None  # negative: the signal that killed it
    monitor: str | None = None  # name of the value that decides what is best
    upwards: bool = False  # higher is better
    best: float | None = None
    values: Mapping[str, float] = field(default_factory=dict)  # measured at the end
    steps: int | None = None
    pruned: str | None = None  # why it was stopped early
    error: str | None = None  # what went wrong; the traceback is in the job's directory

    def setting(self, key: str) -> Any:
        """Return the value of a setting; None if the job has none of that name."""
        return self.settings.get(key, self.usual.get(key))

    @property
    def is_usable(self) -> bool:
        """Say whether the job is done and its best value is finite."""
        return self.state is State.done and self.best is not None and math.isfinite(self.best)


def now() -> str:
    """Return the current time in the format of the records."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def encode(record: JobRecord) -> bytes:
    """Return a record as bytes: one line of JSON and a line with its hash."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    text = plain_data.encode(plain_data.plain(_plain(values), where=f"the record of {record.job}"))
    return f"{text}\n{xxh3_128_hexdigest(text.encode())}\n".encode()


def decode(data: bytes) -> JobRecord:
    """Return the record that `encode` wrote.

    Raises:
        DamagedError: the bytes do not match their hash, or are not a record.
    """
    text, _, digest = data.partition(b"\n")
    if digest != f"{xxh3_128_hexdigest(text)}\n".encode():
        raise DamagedError("it does not match its hash")
    values = plain_data.decode(text)
    if not isinstance(values, dict):
        raise DamagedError("it is not an object")
    known = {field.name for field in fields(JobRecord)}  # a later version may write more
    values = {name: _current(value) for name, value in values.items() if name in known}
    problems = [f"{name} is missing" for name in ("job", "state", "overrides", "settings") if name not in values]
    problems += [f"{name} is {value!r:.80}" for name, value in values.items() if not _ALLOWED[name](value)]
    if problems:
        raise DamagedError("; ".join(problems[:3]))
    return JobRecord(**values | {"state": State(values["state"]), "overrides": tuple(values["overrides"])})


def _current(settings: Any) -> Any:
    """Return settings with the current name of an architecture of the project."""
    target = settings.get("model._target_") if isinstance(settings, dict) else None
    return settings | {"model._target_": targets.current(target)} if isinstance(target, str) else settings


def is_name(text: object) -> bool:
    """Say whether a text can name a job, and so its record and its directory inside the sweep's."""
    return isinstance(text, str) and bool(_NAME.fullmatch(text))


_NAME = re.compile(r"[A-Za-z0-9_-][\w.-]{0,199}", re.ASCII)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_time(value: object) -> bool:
    try:
        return datetime.fromisoformat(str(value)).tzinfo is not None
    except ValueError:
        return False


def _optional(test: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or test(value)


_ALLOWED: Mapping[str, Callable[[Any], bool]] = {
    "job": is_name,
    "state": lambda value: value in list(map(str, State)),
    "overrides": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    **dict.fromkeys(("settings", "usual"), lambda value: isinstance(value, dict)),
    **dict.fromkeys(("planned", "ended"), _optional(_is_text)),
    "started": _optional(_is_time),
    "seconds": lambda value: _is_number(value) and 0 <= value < math.inf,
    "attempts": lambda value: _is_count(value) and value >= 0,
    **dict.fromkeys(("host", "monitor", "pruned", "error"), _optional(_is_text)),
    **dict.fromkeys(("pid", "exit_code", "steps"), _optional(_is_count)),
    "upwards": lambda value: isinstance(value, bool),
    "best": _optional(_is_number),
    "values": lambda value: isinstance(value, dict) and all(map(_is_number, value.values())),
}


def _plain(value: Any) -> Any:
    """Return a value with enumerations and keys of mappings as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in value]
    if isinstance(value, enum.Enum):
        return value.value
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
