"""The random changes of training images that a configuration can ask for, by name."""

from __future__ import annotations

from collections.abc import Sequence

from models.names import did_you_mean

# What each name does by default: the largest change, in the unit that the comment says. None takes no amount.
AMOUNTS: dict[str, float | None] = {
    "flip": None,  # left to right, every other image
    "flip_vertical": None,  # top to bottom, every other image
    "shift": 0.1,  # fraction of height and of width
    "rotate": 0.05,  # fraction of a full turn
    "zoom": 0.1,  # fraction of the size
    "brightness": 0.2,  # on values in 0..1
    "contrast": 0.2,  # fraction of the contrast
}


def augment_steps(specs: Sequence[str]) -> list[tuple[str, float | None]]:
    """Return `(name, amount)` of each spec, `name` or `name:amount`, for specs without problems."""
    steps = []
    for spec in specs:
        name, _, amount = spec.partition(":")
        steps.append((name, float(amount) if amount else AMOUNTS[name]))
    return steps


def augment_problems(specs: Sequence[str]) -> list[str]:
    """Return what in `data.augment` cannot be used."""
    found = [f"data.augment: {reason}" for spec in specs if (reason := _spec_problem(spec))]
    names = [spec.partition(":")[0] for spec in specs]
    twice = sorted({name for name in names if names.count(name) > 1})
    return found + [f"data.augment: {name!r} is given twice" for name in twice]


def _spec_problem(spec: str) -> str:
    name, colon, amount = spec.partition(":")
    if name not in AMOUNTS:
        return f"no augmentation {name!r}; there are {', '.join(AMOUNTS)}.{did_you_mean(name, AMOUNTS)}"
    if not colon:
        return ""
    if AMOUNTS[name] is None:
        return f"{spec!r}: {name} takes no amount; write {name!r}"
    try:
        inside = 0 < float(amount) < 1
    except ValueError:
        inside = False
    return "" if inside else f"{spec!r}: the amount is a number between 0 and 1, e.g. '{name}:{AMOUNTS[name]}'"
