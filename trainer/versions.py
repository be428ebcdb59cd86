"""What a checkpoint says of where it came from: versions, and the origin of weights that were not made here."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

_PACKAGES = ("nameplate", "tensorflow", "keras", "numpy")


def about(origins: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the versions in use, and by variable the file, the name in it and the rule of its first value."""
    versions = {name: version(name) for name in _PACKAGES} | {"python": platform.python_version()}
    return {"versions": versions, "origins": dict(origins)}
