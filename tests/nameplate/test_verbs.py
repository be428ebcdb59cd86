"""The table of contents: every public verb is typed, loaded on first use, and documents each of its parameters."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nameplate

ROOT = Path(__file__).parents[2]
VERBS = [name for name in nameplate.__all__ if inspect.isfunction(getattr(nameplate, name))]


def _typed() -> Iterator[tuple[str, str]]:
    """Yield (name, module) of each import in the `TYPE_CHECKING` block."""
    tree = ast.parse(Path(inspect.getfile(nameplate)).read_text(encoding="utf-8"))
    for block in tree.body:
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING":
            imports = [line for line in block.body if isinstance(line, ast.ImportFrom)]
            yield from ((str(alias.asname), str(line.module)) for line in imports for alias in line.names)


def test_type_checkers_see_the_same_verbs_as_the_interpreter() -> None:
    assert dict(_typed()) == nameplate._HOME_OF


def test_mypy_sees_a_verb_as_what_it_is(tmp_path: Path) -> None:
    file = tmp_path / "user.py"
    file.write_text(
        "import nameplate\n"
        "reveal_type(nameplate.rename)\n"
        "reveal_type(nameplate.check)\n"
        "nameplate.rename(1, ['a'], polcy='strict')\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", str(file)]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout

    rename, check, *_ = re.findall(r'Revealed type is "(.*)"', text)
    for parameter in ("model:", "to:", "policy:", "uncompiled: bool"):
        assert parameter in re.sub(r"builtins\.", "", rename)
    assert "list[nameplate.naming.policy.Violation]" in check
    assert 'Unexpected keyword argument "polcy" for "rename"' in text


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_documents_each_of_its_parameters(verb: str) -> None:
    function: Any = getattr(nameplate, verb)
    described = re.search(r"\nArgs:\n(.*?)(?=\n\S|\Z)", inspect.getdoc(function) or "", re.DOTALL)
    names = re.findall(r"^ {4}\**(\w+): ", described.group(1) if described else "", re.MULTILINE)

    assert names == list(inspect.signature(function).parameters)
