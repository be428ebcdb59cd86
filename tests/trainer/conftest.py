"""The table of replica counts takes minutes: it runs with the long suites, `make faults`' environment."""

from __future__ import annotations

import os

collect_ignore = [] if os.environ.get("NAMEPLATE_FAULTS") else ["replication"]
