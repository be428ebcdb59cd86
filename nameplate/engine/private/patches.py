"""Attributes of classes, modules and objects that are replaced inside a block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

Patch = tuple[Any, str, Any]  # a class or module, the name of its attribute, and the replacement


@contextmanager
def patched(patches: Iterable[Patch]) -> Iterator[None]:
    """Inside, attributes of classes or modules are their replacements; they are put back in reverse order.

    `patches` may be a generator that reads the current attribute to wrap it: each is set before the next is taken.
    """
    before: list[Patch] = []
    try:
        for owner, name, replacement in patches:
            before.append((owner, name, getattr(owner, name)))
            setattr(owner, name, replacement)
        yield
    finally:
        for owner, name, original in reversed(before):
            setattr(owner, name, original)


@contextmanager
def shadowed(instance: Any, name: str, replacement: Any) -> Iterator[None]:
    """Inside, one object has another attribute, set without what Keras does when attributes change."""
    attributes, missing = vars(instance), object()
    before = attributes.get(name, missing)
    attributes[name] = replacement
    try:
        yield
    finally:
        if before is missing:
            attributes.pop(name, None)
        else:
            attributes[name] = before
