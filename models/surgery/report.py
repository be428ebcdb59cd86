"""What an edit did, as data: a table and JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Line:
    """One thing that an edit did."""

    name: str  # qualified name of the layer, or of the variable
    what: str  # edit aloud dropped rebuilt weight input output model verified
    detail: str


@dataclass(frozen=True)
class Report:
    """All that an edit did; what it left alone is a number."""

    model: str
    lines: tuple[Line, ...]
    untouched: int  # layers whose names and weights are those of the original
    weights: int  # variables taken over bit for bit

    def table(self) -> str:
        """Return the lines in columns, and the counts below."""
        if not self.lines:
            return self.tail()
        widths = [max(len(getattr(line, key)) for line in self.lines) for key in ("what", "name")]
        rows = [f"  {line.what:<{widths[0]}}  {line.name:<{widths[1]}}  {line.detail}".rstrip() for line in self.lines]
        return "\n".join([f"{self.model}:", *rows, self.tail()])

    def tail(self) -> str:
        """Return the counts."""
        return f"  {self.untouched} layers untouched, {self.weights} variables taken over bit for bit"

    def json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(asdict(self), indent=1)

    def aloud(self) -> list[Line]:
        """Return what nobody may overlook: second names, weights made anew, what was dropped, names of outputs."""
        return [
            line for line in self.lines if line.what in ("aloud", "dropped", "rebuilt", "weight new", "output name")
        ]
