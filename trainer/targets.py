"""What a `_target_` may name: ours, Keras' constructors, and what the user trusts on the command line.

A dotted name in a configuration is data until it is imported, and importing runs code. So only names under these
prefixes are imported, and a prefix of the user's own counts from `trust=[...]` of this command line alone.
"""

from __future__ import annotations

import inspect
import keyword
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from models.errors import NameplateError
from models.names import did_you_mean

OURS = (
    "models.zoo.",
    "keras.layers.",
    "keras.applications.",
    "keras.optimizers.",
    "keras.losses.",
    "keras.metrics.",
)


class TargetError(NameplateError):
    """A `_target_` that may not be used, does not exist, or does not take what it would get."""


def resolver(trust: Sequence[str]) -> Callable[[str], Any]:
    """Return the function that turns a dotted name into its object, for these trusted packages.

    The function raises TargetError for a name outside the allowed prefixes, before anything is imported.
    """
    prefixes = (*OURS, *(f"{package.rstrip('.')}." for package in trust))

    def resolve(path: str) -> Any:
        parts = path.split(".")
        if len(parts) < 2 or not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
            raise TargetError(f"_target_: {path!r} is not a dotted name like my_package.models.build")
        if not path.startswith(prefixes):
            raise TargetError(
                f"_target_: {path!r} is not among what may be run: {', '.join(prefixes)}. "
                f"If you trust it, say so on the command line: trust=[{parts[0]}]"
            )
        found = _load(path, parts)
        if path.startswith(OURS) and not str(getattr(found, "__module__", "")).startswith(("models.zoo.", "keras.")):
            raise TargetError(f"_target_: {path!r} only passes through; name it where it is defined, and trust that")
        return found

    return resolve


def call(function: Callable[..., Any], path: str, *, offered: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """Call `function` with what the configuration gives, and with what the run offers where it asks by that name.

    Raises:
        TargetError: arguments given that it does not take, or required ones that nobody gives; or what it raised
            itself, and where.
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return function(**given)
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    unknown = [] if takes_any else sorted(given.keys() - parameters.keys())
    arguments = {name: value for name, value in offered.items() if name in parameters} | dict(given)
    required = [
        name
        for name, each in parameters.items()
        if each.default is each.empty and each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    ]
    lacking = [name for name in required if name not in arguments]
    problems = [f"it takes no {name!r}.{did_you_mean(name, parameters)}" for name in unknown]
    problems += [f"it needs {name!r}, which is neither given nor one of {', '.join(offered)}" for name in lacking]
    if problems:
        raise TargetError("\n  ".join([f"{path}({', '.join(parameters)}) cannot be called:", *problems]))
    try:
        return function(**arguments)
    except NameplateError:
        raise
    except Exception as error:
        *_, place = traceback.extract_tb(error.__traceback__)
        where = f"{place.filename}, line {place.lineno}, in {place.name}"
        raise TargetError(f"{path} raised {type(error).__name__}: {error}\n  at {where}") from error


def _load(path: str, parts: list[str]) -> Any:
    for length in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:length])
        try:
            found = import_module(name)
        except ModuleNotFoundError as error:
            if error.name and not name.startswith(error.name):
                raise TargetError(f"_target_: {path!r} cannot be imported: {error}") from error
            continue
        return _attribute(found, parts[length:], path)
    raise TargetError(f"_target_: no module {parts[0]!r} for {path!r}; is it installed, or on PYTHONPATH?")


def _attribute(found: Any, rest: list[str], path: str) -> Any:
    for name in rest:
        if inspect.ismodule(found) and not hasattr(found, name):
            raise TargetError(
                f"_target_: {found.__name__} has no {name!r}, wanted by {path!r}.{did_you_mean(name, dir(found))}"
            )
        found = getattr(found, name, None)
        if inspect.ismodule(found):  # one that was imported there for its own use: not what the prefix allows
            raise TargetError(f"_target_: {path!r} leads through the module {found.__name__}; name that module itself")
    if not callable(found):
        raise TargetError(f"_target_: {path!r} is not callable but {type(found).__name__}")
    return found
