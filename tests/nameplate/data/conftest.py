"""Every test here runs TensorFlow: the two logical devices have to be there before its first operation."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _two_devices(strategy: Any) -> None:
    del strategy
