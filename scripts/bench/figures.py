"""What a benchmark measured: told as ratios against their bars, kept with the versions in `results/`."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nameplate.training.progress import about

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figure:
    """A ratio, and the bar that it is to keep under; None: told and not judged."""

    name: str
    value: float
    at_most: float | None = None

    @property
    def missed(self) -> bool:
        """Say whether the bar does not hold."""
        return self.at_most is not None and self.value > self.at_most

    def __str__(self) -> str:
        verdict = "" if self.at_most is None else f"  at most {self.at_most:<5} {'MISSED' if self.missed else 'ok'}"
        return f"  {self.name:<66} {self.value:7.3f}{verdict}"


def verdict(ratios: Mapping[str, float], bars: Mapping[str, float]) -> int:
    """Print each ratio beside its bar, and return 1 when one of them misses it."""
    figures = [Figure(name, ratio, bars[name]) for name, ratio in ratios.items()]
    print(*figures, sep="\n")
    return int(any(each.missed for each in figures))


def keep(section: str, part: str, figures: Sequence[Figure], details: Mapping[str, Any]) -> None:
    """Write a part of a section's figures into `results/SECTION.json`, where the other parts stay as they are."""
    path = RESULTS / f"{section}.json"
    kept = json.loads(path.read_text("utf-8")) if path.exists() else {}
    kept[part] = {
        "versions": about({})["versions"],
        "machine": machine(),
        "figures": [asdict(each) for each in figures],
        **details,
    }
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n", "utf-8")


def machine() -> str:
    """Return processor and cores in words."""
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text("utf-8"))
    cores = len(re.findall(r"^processor", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE))
    return f"{found[1] if found else platform.processor()}, {cores} cores"
