"""The table and the chart of a step's cost by replicas and size, from the kept results."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.bench.figures import RESULTS

_REPLICAS = (1, 2, 4)
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 360, 70, 50  # pixels
_COLOURS = {"fit": "#c0504d", "ours": "#1f77b4"}
_DASHES = ("none", "6 3", "2 3")


def draw() -> Path | None:
    """Write `loop.md` and `loop.svg` beside the results; None if some number of replicas has no result."""
    path = RESULTS / "loop.json"
    kept = json.loads(path.read_text("utf-8")) if path.exists() else {}
    if any(f"replicas_{count}" not in kept for count in _REPLICAS):
        return None
    costs = {count: kept[f"replicas_{count}"]["times"] for count in _REPLICAS}
    sizes = [name.partition(", ")[2] for name in costs[1] if name.startswith("ours")]
    (RESULTS / "loop.md").write_text(_table(costs, sizes, kept["replicas_1"]), "utf-8")
    (RESULTS / "loop.svg").write_text(_chart(costs, sizes), "utf-8")
    return RESULTS / "loop.md"


def _table(costs: Mapping[int, Any], sizes: Sequence[str], about: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        "Milliseconds a step of 32 examples, `model.fit` through tf.data and the loop with arrays on the devices, on "
        f"logical CPU devices of {about['machine']}; {versions}.",
        "",
        "| replicas | " + " | ".join(f"fit, {size} | ours | ratio" for size in sizes) + " |",
        "|---" * (1 + 3 * len(sizes)) + "|",
    ]
    for count, times in costs.items():
        cells = []
        for size in sizes:
            fit, ours = (times[f"{name}, {size}"]["wall_ms"] for name in ("fit", "ours"))
            cells += [f"{fit:.3f}", f"{ours:.3f}", f"{ours / fit:.2f}"]
        lines.append(f"| {count} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "![the same as a chart](loop.svg)", ""])


def _chart(costs: Mapping[int, Any], sizes: Sequence[str]) -> str:
    """Return lines over the number of replicas, both axes logarithmic, as SVG."""
    values = [time["wall_ms"] for times in costs.values() for time in times.values()]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))

    def x(count: int) -> float:
        return _LEFT + math.log2(count) / math.log2(_REPLICAS[-1]) * (_WIDTH - _LEFT - 190)

    def y(cost: float) -> float:
        return 20 + (high - math.log10(cost)) / (high - low) * (_HEIGHT - _BOTTOM - 20)

    parts = [f'<text x="{x(count):.0f}" y="{_HEIGHT - 30}" text-anchor="middle">{count}</text>' for count in _REPLICAS]
    for power in range(low, high + 1):
        at = y(10**power)
        parts.append(f'<line x1="{_LEFT}" y1="{at:.0f}" x2="{x(4):.0f}" y2="{at:.0f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{at + 4:.0f}" text-anchor="end">{10.0**power:g} ms</text>')
    for (size, dash), (name, colour) in ((a, b) for a in zip(sizes, _DASHES, strict=True) for b in _COLOURS.items()):
        line = [(x(count), y(times[f"{name}, {size}"]["wall_ms"])) for count, times in costs.items()]
        points = " ".join(f"{across:.1f},{down:.1f}" for across, down in line)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'
        )
        across, down = line[-1]
        parts.append(f'<text x="{across + 8:.0f}" y="{down + 4:.0f}" fill="{colour}">{name}, {size}</text>')
    middle = (x(1) + x(4)) / 2
    parts.append(f'<text x="{middle:.0f}" y="{_HEIGHT - 10}" text-anchor="middle">replicas</text>')
    style = f'xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif"'
    inside = "\n".join(parts)
    return f'<svg {style} font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n{inside}\n</svg>\n'
