"""Writes the map in the README from the first paragraph of every room's docstring; `make fmt` runs it."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARKS = ("<!-- map -->\n", "<!-- end of map -->\n")
CONF = (
    "`train.yaml` and a group of options for each section; `experiment/` and `debug/` change several sections at once"
)


def written(readme: str) -> str:
    """Return the text of the README with the current map."""
    before, _, rest = readme.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    rows = ["| room | what is in it |", "|---|---|", *_rows()]
    return before + MARKS[0] + "\n".join(rows) + "\n" + MARKS[1] + after


def _rows() -> Iterator[str]:
    """Yield the rooms from the top down, in the order of the import contracts in pyproject.toml."""
    floors = _floors()
    yield f"| `scripts/` | {_sentence(ROOT / 'scripts')} |"
    for package in ("trainer", "nameplate"):
        yield f"| **`{package}/`** | {_sentence(ROOT / package)} |"
        for room in floors[package]:
            shown = "models/" if room == "models" else f"{package}/{room}"
            path = ROOT / package / room
            yield f"| `{shown.rstrip('/')}{'/' if path.is_dir() else '.py'}` | {_sentence(path)} |"
    yield f"| `conf/` | {CONF} |"


def _floors() -> dict[str, list[str]]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    return {
        contract["containers"][0]: [room for floor in contract["layers"] for room in floor.split(" | ")]
        for contract in contracts
        if "containers" in contract
    }


def _sentence(path: Path) -> str:
    module = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(module.read_text("utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("|", "\\|")


def main() -> None:
    """Update README.md."""
    readme = ROOT / "README.md"
    readme.write_text(written(readme.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
