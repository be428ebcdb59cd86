"""Every key of the configuration is documented where it is declared."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from trainer.config.run_config import RunConfig
from trainer.config.schemas import SCHEMAS, classes_of


def sections() -> list[type]:
    """Return the dataclasses of all options, with those inside them and their base classes."""
    found: list[type] = [RunConfig, *(schema for schemas in SCHEMAS.values() for schema in classes_of(schemas))]
    found += [type(getattr(section(), key.name)) for section in found[1:] for key in fields(section)]
    bases = [base for section in found for base in section.__mro__ if is_dataclass(base)]
    return sorted(dict.fromkeys(bases), key=lambda section: section.__name__)


def undocumented(section: type) -> Iterator[str]:
    """Yield the keys that a class declares without a comment on their line or above it, and no base class does."""
    source = Path(inspect.getfile(section)).read_text("utf-8")
    lines = source.splitlines()
    inherited = {key.name for base in section.__mro__[1:] if is_dataclass(base) for key in fields(base)}
    (tree,) = (node for node in ast.parse(source).body if getattr(node, "name", "") == section.__name__)
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.col_offset == 4:
            commented = "#" in lines[(node.end_lineno or node.lineno) - 1] or lines[node.lineno - 2].strip()[:1] == "#"
            if not commented and node.target.id not in inherited:
                yield node.target.id


@pytest.mark.parametrize("section", sections(), ids=lambda section: section.__name__)
def test_every_key_has_a_comment_in_its_dataclass(section: type) -> None:
    assert list(undocumented(section)) == []
