"""The record of one job of a sweep: plain data, one file, hashed."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from xxhash import xxh3_128_hexdigest

from models.store import plain
from models.store.errors import DamagedError


class State(enum.StrEnum):
    """How a job stands."""

    planned = "planned"
    running = "running"
    done = "done"
    failed = "failed"
    interrupted = "interrupted"  # ended before it was done, and not by itself


@dataclass(frozen=True)
class Record:
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


def encode(record: Record) -> bytes:
    """Return a record as bytes: one line of JSON, and a line with its hash."""
    values = {each.name: getattr(record, each.name) for each in fields(record)}
    text = plain.encode(plain.plain(_plain(values), where=f"the record of {record.job}"))
    return f"{text}\n{xxh3_128_hexdigest(text.encode())}\n".encode()


def decode(data: bytes) -> Record:
    """Return the record that `encode` wrote.

    Raises:
        DamagedError: the bytes are not what was written, or say what no record of a job says.
    """
    text, _, digest = data.partition(b"\n")
    if digest != f"{xxh3_128_hexdigest(text)}\n".encode():
        raise DamagedError("it does not have its hash")
    values = plain.decode(text)
    if not isinstance(values, dict):
        raise DamagedError("it is not an object")
    known = {each.name for each in fields(Record)}  # a later version may write more
    values = {name: value for name, value in values.items() if name in known}
    problems = [f"{name} is missing" for name in ("job", "state", "overrides", "settings") if name not in values]
    problems += [f"{name} is {value!r:.80}" for name, value in values.items() if not _ALLOWED[name](value)]
    if problems:
        raise DamagedError("; ".join(problems[:3]))
    return Record(**values | {"state": State(values["state"]), "overrides": tuple(values["overrides"])})


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
