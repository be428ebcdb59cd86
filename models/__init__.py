"""What a model is, and everything that can be done to one without training it.

The verbs are handed out lazily: `import models` imports neither TensorFlow nor Keras.
"""

import sys
from importlib import import_module
from typing import Any

_VERBS = {
    "NameplateError": "errors",
    "Policy": "policy",
    "Violation": "policy",
    "NamingError": "policy",
    "layers": "tree",
    "variables": "tree",
    "layer": "tree",
    "check": "naming",
    "enforce": "naming",
    "rename": "renaming",
    "save": "saving",
    "load": "opening",
    "load_weights": "loading",
    "export": "exporting",
    "edit": "surgery.verbs",
    "replace": "surgery.verbs",
    "insert": "surgery.verbs",
    "remove": "surgery.verbs",
    "extract": "surgery.cutting",
    "flatten": "surgery.inlining",
    "draw": "surgery.drawing",
    "Replace": "surgery.edits",
    "Insert": "surgery.edits",
    "Remove": "surgery.edits",
    "prefixed": "joining",
    "join": "joining",
    "branch": "joining",
    "ensemble": "ensembles",
    "siamese": "ensembles",
    "attach": "heads",
    "plan": "transfer",
    "apply": "transfer",
    "TransferPlan": "transfer",
    "Classes": "adapting",
    "reconstruct": "recovering",
    "set_trainable": "trainability",
    "load_beside": "clashing",
    "load_choosing": "clashing",
    "mend": "mending",
    "freeze": "freezing",
    "Frozen": "freezing",
    "read": "bridge",
    "write": "bridge",
}

__all__ = sorted(_VERBS)


def __getattr__(name: str) -> Any:
    if name not in _VERBS:
        raise AttributeError(f"module 'models' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"models.{_VERBS[name]}"), name)


def __dir__() -> list[str]:
    return __all__


if "keras" in sys.modules:  # from here on each layer keeps whether Keras made up its name
    import_module("models.given_names")
