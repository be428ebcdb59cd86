"""The two suites: `make test` runs one case of every kind, `make faults` also the cases that repeat it."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from typing import Any

import hypothesis
import pytest

FAULTS = os.environ.get("NAMEPLATE_FAULTS") == "1"


def cases(every: Iterable[Any], *, short: Collection[Any]) -> list[Any]:
    """Return the cases for `parametrize`: those that `short` does not name are marked `long`.

    Raises:
        ValueError: `short` names a case that does not exist.
    """
    every = list(every)
    if unknown := [case for case in short if case not in every]:
        raise ValueError(f"short: {unknown} are not among {every}")
    return [case if case in short else pytest.param(case, marks=pytest.mark.long) for case in every]


def drawn(*, few: int, many: int) -> Callable[[Any], Any]:
    """Let Hypothesis generate `few` examples in `make test`, and `many` in `make faults`, which has the test too."""

    def decorate(test: Any) -> Any:
        test = hypothesis.settings(max_examples=many if FAULTS else few, deadline=None)(test)
        return pytest.mark.long(test) if FAULTS else test

    return decorate
