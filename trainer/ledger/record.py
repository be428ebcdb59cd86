"""Who a job is: a hash of the settings that decide its result."""

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


class PrunedError(NameplateError):
    """A job that is not worth its rest; `reached` is what its record says of it."""

    def __init__(self, reason: str, reached: Mapping[str, Any]) -> None:
        self.reached = reached
        super().__init__(reason)


class State(enum.StrEnum):
    """How a job stands."""

    planned = "planned"
    running = "running"
    done = "done"
    failed = "failed"
    interrupted = "interrupted"  # ended before it was done, and not by itself


@dataclass(frozen=True)
class JobRecord:
    """What is known of a job; times are ISO 8601 in UTC."""

    job: str  # its identity, and the name of its directory
    state: State
    overrides: tuple[str, ...]  # the command line of this job alone
    settings: Mapping[str, Any]  # who it is: what decides its result and is not as usual, by dotted key
    usual: Mapping[str, Any] = field(default_factory=dict)  # the other settings that decide it
    planned: str | None = None
    started: str | None = None  # of the latest attempt
    ended: str | None = None
    seconds: float = 0.0  # of all attempts together
    attempts: int = 0
    host: str | None = None
    pid: int | None = None
    exit_code: int | None = None  # as the shell has it; negative: the signal that ended it
    monitor: str | None = None  # the value that decides what is best
    upwards: bool = False  # a greater one is better
    best: float | None = None
    values: Mapping[str, float] = field(default_factory=dict)  # measured at the end
    steps: int | None = None
    pruned: str | None = None  # why it was given up early, in words
    error: str | None = None  # what went wrong, in words; the traceback is in the job's directory

    def setting(self, key: str) -> Any:
        """Return the value of a setting, None where the job has none of that name."""
        return self.settings.get(key, self.usual.get(key))

    @property
    def is_usable(self) -> bool:
        """Say whether the job is done and reached a number."""
        return self.state is State.done and self.best is not None and math.isfinite(self.best)


def now() -> str:
    """Return the time as records have it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def encode(record: JobRecord) -> bytes:
    """Return a record as bytes: one line of JSON, and a line with its hash."""
    values = {each.name: getattr(record, each.name) for each in fields(record)}
    text = plain_data.encode(plain_data.plain(_plain(values), where=f"the record of {record.job}"))
    return f"{text}\n{xxh3_128_hexdigest(text.encode())}\n".encode()


def decode(data: bytes) -> JobRecord:
    """Return the record that `encode` wrote.

    Raises:
        DamagedError: the bytes are not what was written, or say what no record of a job says.
    """
    text, _, digest = data.partition(b"\n")
    if digest != f"{xxh3_128_hexdigest(text)}\n".encode():
        raise DamagedError("it does not have its hash")
    values = plain_data.decode(text)
    if not isinstance(values, dict):
        raise DamagedError("it is not an object")
    known = {each.name for each in fields(JobRecord)}  # a later version may write more
    values = {name: _current(value) for name, value in values.items() if name in known}
    problems = [f"{name} is missing" for name in ("job", "state", "overrides", "settings") if name not in values]
    problems += [f"{name} is {value!r:.80}" for name, value in values.items() if not _ALLOWED[name](value)]
    if problems:
        raise DamagedError("; ".join(problems[:3]))
    return JobRecord(**values | {"state": State(values["state"]), "overrides": tuple(values["overrides"])})


def _current(settings: Any) -> Any:
    """Return settings in which an architecture of the project is called as it is today."""
    target = settings.get("model._target_") if isinstance(settings, dict) else None
    return settings | {"model._target_": targets.current(target)} if isinstance(target, str) else settings


def is_name(text: object) -> bool:
    """Say whether a job may be called so: its record and its directory are, and lie in the sweep's."""
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
    "state": lambda value: value in [str(each) for each in State],
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
    """Return the value with its enums as words, and keys of mappings as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    if isinstance(value, enum.Enum):
        return value.value
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
