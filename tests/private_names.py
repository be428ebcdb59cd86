"""What a module uses of the private parts of others: attributes with an underscore, and imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

# Names with an underscore that are public after all, or our own: of named tuples and of `os`, an attribute of callbacks
# that is not saved, a method of another object of the same class.
OURS = {"_replace", "_exit", "_model", "_renamed", "_nameplate_graphs"}


def private_names(path: Path) -> Iterator[str]:
    """Yield the underscored attributes of other objects in a module, as attributes or in strings."""
    tree = ast.parse(path.read_text("utf-8"))
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    own |= {node.attr for node in ast.walk(tree) if _is_of_self(node)}  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        name: object = None
        if isinstance(node, ast.Attribute) and not _is_of_self(node):
            name = node.attr
        elif isinstance(node, ast.Constant):
            name = node.value
        if not isinstance(name, str) or not re.fullmatch(r"_[a-z][a-z0-9_]*(?<!_)", name) or name in OURS:
            continue
        if not (isinstance(node, ast.Attribute) and name in own):
            yield name


def _is_of_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"


def private_imports(path: Path) -> Iterator[str]:
    """Yield the modules that a module imports and that their package does not document."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name for name in names if name and name.startswith(UNDOCUMENTED))


UNDOCUMENTED = ("keras.src", "tensorflow.python", "hydra._internal", "hydra.core.override_parser", "omegaconf._")
