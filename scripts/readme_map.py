"""Writes the README's map of the house from the first sentence of every module; `make fmt` runs it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARKS = ("<!-- map -->\n", "<!-- end of map -->\n")
CONF = (
    "`train.yaml` and a group of options for each section; `experiment/` and `debug/` change several sections at once"
)


def written(readme: str) -> str:
    """Return the README's text with the map as the house now is."""
    before, _, rest = readme.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    rows = ["| room | what is in it |", "|---|---|", f"| `conf/` | {CONF} |", *_rows()]
    return before + MARKS[0] + "\n".join(rows) + "\n" + MARKS[1] + after


def _rows() -> Iterator[str]:
    for package in ("models", "trainer", "scripts"):
        inside = sorted((ROOT / package).iterdir(), key=lambda path: (path.is_dir(), path.name))
        for path in inside:
            if path.suffix == ".py" and not path.name.startswith("__init__"):
                yield f"| `{package}/{path.name}` | {_sentence(path)} |"
            elif (path / "__init__.py").exists():
                yield f"| `{package}/{path.name}/` | {_sentence(path / '__init__.py')} |"


def _sentence(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("|", "\\|")


def main() -> None:
    """Bring README.md up to date."""
    readme = ROOT / "README.md"
    readme.write_text(written(readme.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
