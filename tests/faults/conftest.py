"""The long forms of the fault tests: only `NAMEPLATE_FAULTS=1 pytest tests/faults` collects them."""

from __future__ import annotations

import os

from tests.nameplate.checkpoint.conftest import inject

__all__ = ["inject"]

collect_ignore_glob = [] if os.environ.get("NAMEPLATE_FAULTS") == "1" else ["*"]
