"""What runs a model: a configured training, the loop alone.

The verbs are handed out lazily: `import trainer` imports neither TensorFlow nor Hydra.
"""

from importlib import import_module
from typing import Any

# No module here is called like a verb: importing one would put the module in the verb's place.
_VERBS = {
    "run": "flow",
    "fit": "fitting",
    "evaluate": "applying",
    "predict": "applying",
    "look": "dreaming.looking",
    "saliency": "dreaming.looking",
    "run_config": "compose",
    "RunConfig": "config.run",
}
# But for this one, which `python -m trainer.dream` needs: it can be called.
_CALLABLE = ("dream",)

__all__ = sorted([*_VERBS, *_CALLABLE])


def __getattr__(name: str) -> Any:
    if name in _CALLABLE:
        return import_module(f"trainer.{name}")
    if name not in _VERBS:
        raise AttributeError(f"module 'trainer' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"trainer.{_VERBS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
