"""What an architecture cannot be built from."""

from __future__ import annotations

from collections.abc import Iterable

from models.errors import NameplateError


class BuildError(NameplateError):
    """An architecture that does not fit the data or its parameters; the message lists every problem."""

    def __init__(self, architecture: str, problems: Iterable[str]) -> None:
        self.architecture = architecture
        self.problems = list(problems)
        super().__init__("\n  ".join([f"the model '{architecture}' cannot be built:", *self.problems]))


def require(architecture: str, problems: Iterable[str]) -> None:
    """Raise BuildError with all the problems, if there is any."""
    found = list(problems)
    if found:
        raise BuildError(architecture, found)
