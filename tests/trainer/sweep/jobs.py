"""Records of jobs that never ran, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

from trainer.ledger.record import JobRecord, State


def job(name: str, state: State = State.done, *, best: float | None = None, **given: Any) -> JobRecord:
    """Return a record; `given` are its settings, with `__` for dots, and fields of the record."""
    fields = {key: given.pop(key) for key in list(given) if key in JobRecord.__dataclass_fields__}
    settings = {key.replace("__", "."): value for key, value in given.items()}
    about: dict[str, Any] = {"monitor": "val_accuracy", "upwards": True} if best is not None else {}
    about |= {"started": "2026-01-01T00:00:00+00:00", "ended": "2026-01-01T00:00:09+00:00", "seconds": 9.0}
    return JobRecord(name, state, (f"seed={settings.get('seed')}",), settings, **about | {"best": best} | fields)
