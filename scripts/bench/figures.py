"""The ratios that a benchmark measures: printed with their limits, and kept with the versions in `results/`."""

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
    """A ratio and its limit; without a limit it is only printed."""

    name: str
    value: float
    at_most: float | None = None

    @property
    def missed(self) -> bool:
        """Say whether the limit is exceeded."""
        return self.at_most is not None and self.value > self.at_most

    def __str__(self) -> str:
        verdict = "" if self.at_most is None else f"  at most {self.at_most:<5} {'MISSED' if self.missed else 'ok'}"
        return f"  {self.name:<66} {self.value:7.3f}{verdict}"


def verdict(ratios: Mapping[str, float], bars: Mapping[str, float]) -> int:
    """Print the ratios with their limits, and return 1 if one is exceeded."""
    figures = [Figure(name, ratio, bars[name]) for name, ratio in ratios.items()]
    print(*figures, sep="\n")
    return int(any(figure.missed for figure in figures))


def keep(section: str, part: str, figures: Sequence[Figure], details: Mapping[str, Any]) -> None:
    """Write the figures of one part of a section to `results/SECTION.json`; the other parts stay."""
    path = RESULTS / f"{section}.json"
    kept = json.loads(path.read_text("utf-8")) if path.exists() else {}
    kept[part] = {
        "versions": about({})["versions"],
        "machine": machine(),
        "figures": [asdict(figure) for figure in figures],
        **details,
    }
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n", "utf-8")


def machine() -> str:
    """Return the processor and its number of cores, as text."""
    match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text("utf-8"))
    cores = len(re.findall(r"^processor", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE))
    return f"{match[1] if match else platform.processor()}, {cores} cores"
