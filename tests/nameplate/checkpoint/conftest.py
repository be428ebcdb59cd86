"""The writer process of the fault tests, shared by them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.nameplate.checkpoint.injection import Injector, injector


@pytest.fixture(scope="session")
def inject() -> Iterator[Injector]:
    """Return the injector of system call faults; skips where strace is missing."""
    with injector() as found:
        yield found
