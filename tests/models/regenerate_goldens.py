"""Writes tests/golden/names/*.txt: `python -m tests.models.regenerate_goldens`.

A name in them is the address of weights in every checkpoint written so far: a change here breaks loading them,
and needs a rename rule. So read the difference before you commit it.
"""

from __future__ import annotations

from pathlib import Path

from nameplate.graph.tree import variables
from tests.models.cases import GOLDEN

DIRECTORY = Path(__file__).parents[1] / "golden" / "names"


def main() -> None:
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for name, case in GOLDEN.items():
        (DIRECTORY / f"{name}.txt").write_text("".join(f"{line}\n" for line in variables(case.build())))


if __name__ == "__main__":
    main()
