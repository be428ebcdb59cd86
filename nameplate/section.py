"""The base of every section of a run's configuration, which lists its own problems."""

from __future__ import annotations

from nameplate.arguments import CheckedFields
from nameplate.errors import NameplateError


class ConfigError(NameplateError):
    """A configuration that cannot run; the message lists every problem."""

    def __init__(self, problems: list[str], of: str = "the configuration") -> None:
        self.problems = problems
        head = of if len(problems) != 1 else f"one setting of {of}"
        count = f"{len(problems)} settings of " if len(problems) > 1 else ""
        super().__init__("\n".join([f"{count}{head} cannot be used:", *(f"  {problem}" for problem in problems)]))


class Section(CheckedFields):
    """A frozen dataclass of the configuration that can list its problems."""

    def problems(self) -> list[str]:
        """Return each problem as `key: what is wrong, what was received, what to do`; empty when there is none."""
        return []


def at_least(key: str, value: float | None, bound: float, *, unit: str = "") -> list[str]:
    """Return the problem of a number below its bound; None is allowed and means that the option is off."""
    if value is None or value >= bound:
        return []
    return [f"{key}: {value} is too small; at least {bound}{' ' + unit if unit else ''}"]


def above(key: str, value: float | None, bound: float) -> list[str]:
    """Return the problem of a number that must be greater than its bound."""
    if value is None or value > bound:
        return []
    return [f"{key}: {value} is too small; greater than {bound}"]
