"""Every call of every kind of save, killed and failed, until none is left; and a persistent failure from each
on.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.nameplate.checkpoint.faults import WRITING, sweep
from tests.nameplate.checkpoint.injection import CALLS, Injector

ERRORS = ["ENOSPC", "EIO", "EROFS", "EDQUOT"]


@pytest.mark.parametrize("scenario", WRITING)
@pytest.mark.parametrize("call", CALLS)
def test_a_kill(inject: Injector, tmp_path: Path, scenario: str, call: str) -> None:
    for _, outcome in sweep(inject, tmp_path / "run", scenario, call, "signal=SIGKILL:when={number}"):
        assert outcome.code == -signal.SIGKILL


@pytest.mark.parametrize("scenario", WRITING)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("lasting", ["", "+"], ids=["once", "from then on"])
def test_an_error(inject: Injector, tmp_path: Path, scenario: str, call: str, error: str, lasting: str) -> None:
    fault = f"error={error}:when={{number}}{lasting}"
    for _, outcome in sweep(inject, tmp_path / "run", scenario, call, fault):
        assert outcome.code in (0, 1), outcome.said
        assert outcome.code == 1 or outcome.said[-1].startswith("kept")
        assert outcome.code == 0 or f"({error})" in outcome.said[-1]
