"""Arguments checked at the door against annotations: `checked` for a verb, `CheckedFields` for a dataclass.

A signature says what is possible. The error for anything else names the argument, what was received and what is
needed, for all arguments at once. Ranges, shapes and what exists are the verb's own to check.
"""

from __future__ import annotations

import collections.abc
import enum
import functools
import inspect
import numbers
import os
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, ParamSpec, TypeVar

from nameplate.errors import NameplateError

_P = ParamSpec("_P")
_R = TypeVar("_R")

BY_VERB = "checked by the verb, which says more"  # in Annotated[TYPE, BY_VERB]
_MISSING = "???"  # OmegaConf's word for a value that is still to come
_SHOWN = 80  # characters of a value
_UNIONS = (typing.Union, types.UnionType)
_CONTAINERS = (list, tuple, set, frozenset, collections.abc.KeysView)  # whose contents can be looked at


class ArgumentError(NameplateError, TypeError):
    """Arguments of types that a verb does not take."""


def checked(verb: Callable[_P, _R]) -> Callable[_P, _R]:
    """Return the verb, which now refuses arguments that its annotations exclude, with `ArgumentError`."""
    signature = inspect.signature(verb)

    @functools.wraps(verb)
    def call(*given: _P.args, **named: _P.kwargs) -> _R:
        try:
            bound = signature.bind(*given, **named)
        except TypeError:  # too many or unknown arguments: Python says so itself
            return verb(*given, **named)
        _refuse(_problems(_flat(signature, bound.arguments), _hints(verb)))
        return verb(*given, **named)

    return call


class CheckedFields:
    """The base of a frozen dataclass whose fields are of the types that it declares; words become enum members."""

    def __post_init__(self) -> None:
        """Raise `ArgumentError` with every field that its annotation excludes."""
        _require_fields(self)


def _require_fields(section: Any) -> None:
    hints = _hints(type(section))  # type: ignore[arg-type]  # mypy: a class is not Hashable
    values = {field.name: getattr(section, field.name) for field in fields(section) if field.init}
    values = {name: value for name, value in values.items() if not (isinstance(value, str) and value == _MISSING)}
    _refuse(_problems(values, hints), of=f"{type(section).__name__.removesuffix('Config')}: ")
    for name, value in values.items():
        kind = next((option for option in _options(hints[name]) if _is_enum(option)), None)
        if kind is not None and isinstance(value, str) and not isinstance(value, kind):
            object.__setattr__(section, name, kind(value))


def shown(value: Any) -> str:
    """Return a value as one short line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 4]} ..."


def kind_of(value: Any) -> str:
    """Return what a value is, for a message: `an int`, `the class Dense`, `an array of shape (3, 4)`."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if _is_array(type(value)):
        return f"an array of shape {value.shape}"
    if value is None:
        return "None"
    length = f" of {len(value)}" if isinstance(value, list | tuple) else ""
    return f"{_with_article(type(value).__name__)}{length}"


def _refuse(problems: list[str], of: str = "") -> None:
    if problems:
        raise ArgumentError("\n".join(f"{of}{problem}" for problem in problems))


def _problems(values: Mapping[str, Any], hints: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}={shown(value)}: {_needed(hints[name])} is needed, not {_stranger(value, hints[name])}"
        for name, value in values.items()
        if name in hints and not _fits(value, hints[name])
    ]


def _flat(signature: inspect.Signature, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments by name; those of `*names` under `names` only, as one tuple, and without `**options`."""
    kinds = {name: parameter.kind for name, parameter in signature.parameters.items()}
    return {name: value for name, value in given.items() if kinds[name] is not inspect.Parameter.VAR_KEYWORD}


@functools.cache
def _hints(owner: Any) -> dict[str, Any]:
    """Return the annotations of a verb or dataclass; of `*names: str` it is `tuple[str, ...]`."""
    hints = typing.get_type_hints(owner, include_extras=True)
    if not isinstance(owner, type):
        for name, parameter in inspect.signature(owner).parameters.items():
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL and name in hints:
                hints[name] = tuple[hints[name], ...]  # type: ignore[valid-type]
    return hints


# ---- does a value fit an annotation? ----------------------------------------------------------------------------


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or isinstance(hint, TypeVar) or BY_VERB in getattr(hint, "__metadata__", ()):
        return True
    if origin in _UNIONS:
        return any(_fits(value, option) for option in inner)
    if origin is typing.Literal:
        return value in inner
    if origin is collections.abc.Callable or hint is Callable:
        return callable(value)
    if origin is None:
        return _is_a(value, hint)
    if issubclass(origin, Mapping):
        return isinstance(value, Mapping) and (type(value) is not dict or _fits_items(value, inner))
    if origin is tuple:
        return _fits_tuple(value, inner)
    if issubclass(origin, collections.abc.Iterable):
        return _fits_each(value, inner[0])
    return isinstance(value, origin)


def _fits_items(value: Mapping[Any, Any], inner: tuple[Any, ...]) -> bool:
    key, item = inner
    return all(_fits(name, key) and _fits(each, item) for name, each in value.items())


def _fits_tuple(value: Any, inner: tuple[Any, ...]) -> bool:
    if len(inner) == 2 and inner[1] is ...:
        return _fits_each(value, inner[0])
    if _is_array(type(value)):
        value = list(value) if value.ndim else value
    return isinstance(value, _CONTAINERS) and len(value) == len(inner) and all(map(_fits, value, inner))


def _fits_each(value: Any, item: Any) -> bool:
    """Return whether a value is several of something; what would be used up by looking is not looked into."""
    if isinstance(value, str):
        return _fits(value, item)  # one name where several may stand; a verb that needs a list says so itself
    if _is_array(type(value)):
        value = value.tolist() if value.ndim == 1 else [value]
    if isinstance(value, bytes | Mapping) or not isinstance(value, collections.abc.Iterable):
        return False
    return not isinstance(value, _CONTAINERS) or all(_fits(each, item) for each in value)


def _is_a(value: Any, kind: Any) -> bool:
    """Return whether a value is of a plain class, as a user means it: NumPy's numbers are numbers, True is not 1."""
    truth = isinstance(value, bool) or type(value).__name__ == "bool"  # NumPy's
    if kind is bool:
        return truth or (isinstance(value, numbers.Integral) and value in (0, 1))
    if kind is int:
        return isinstance(value, numbers.Integral) and not truth
    if kind is float:
        return isinstance(value, numbers.Real) and not truth
    if _is_array(kind):
        return isinstance(value, list | tuple) or (hasattr(value, "__array__") and not isinstance(value, type))
    if _is_enum(kind):
        return isinstance(value, kind) or (isinstance(value, str) and value in [member.value for member in kind])
    if _is_model(kind) and hasattr(value, "train_step") and not isinstance(value, type):
        return True  # a layer mixed with Keras' trainer
    return not isinstance(kind, type) or isinstance(value, kind)


def _is_array(kind: Any) -> bool:
    """Return whether a class is NumPy's array, without importing NumPy."""
    return isinstance(kind, type) and kind.__module__ == "numpy" and kind.__name__ == "ndarray"


def _is_model(kind: Any) -> bool:
    """Return whether a class is Keras' model, without importing Keras."""
    return isinstance(kind, type) and kind.__module__.startswith("keras.") and kind.__name__ == "Model"


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, enum.Enum)


# ---- an annotation in words -------------------------------------------------------------------------------------

_WORDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a string",
    types.NoneType: "None",
}


def _options(hint: Any) -> list[Any]:
    return list(typing.get_args(hint)) if typing.get_origin(hint) in _UNIONS else [hint]


def _needed(hint: Any) -> str:
    """Return what an annotation asks for, in words; None comes last."""
    options = _options(hint)
    path = str in options and any(typing.get_origin(option) is os.PathLike for option in options)
    words = dict.fromkeys("a path" if path and _is_path(option) else _one(option) for option in options)
    words = {word: None for word in words if word != "None"} | {word: None for word in words if word == "None"}
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def _is_path(option: Any) -> bool:
    return option is str or typing.get_origin(option) is os.PathLike


def _one(hint: Any) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in _WORDS:
        return _WORDS[hint]
    if origin is typing.Literal:
        return " or ".join(map(repr, inner))
    if origin is collections.abc.Callable or hint is Callable:
        return "a function"
    if _is_array(hint):
        return "an array"
    if _is_enum(hint):
        *most, last = (repr(member.value) for member in hint)
        return f"{', '.join(most)} or {last}" if most else last
    if origin is None:
        return _with_article(_class_name(hint))
    if issubclass(origin, Mapping):
        key, item = (_bare(each) for each in inner)
        return f"a dictionary {{{key}: {item}}}"
    if origin is tuple and ... not in inner:
        return f"({', '.join(_bare(each) for each in inner)})"
    if issubclass(origin, collections.abc.Iterable):
        return f"a list of {_plural(inner[0])}"
    return _with_article(_class_name(origin))


def _bare(hint: Any) -> str:
    """Return what an annotation asks for, without the article."""
    return _needed(hint).removeprefix("a ").removeprefix("an ") if hint is not Any else "anything"


def _plural(hint: Any) -> str:
    if hint is Any:
        return "anything"
    options = [_bare(option) for option in _options(hint)]
    *most, last = (option if option.startswith(("(", "list")) else f"{option}s" for option in options)
    return f"{', '.join(most)} or {last}" if most else last


def _class_name(kind: Any) -> str:
    """Return the name under which a user knows a class."""
    name, module = getattr(kind, "__name__", str(kind)), getattr(kind, "__module__", "")
    if module.startswith("keras."):
        place = {"Callback": "callbacks.", "Metric": "metrics."}.get(name, "")
        return f"keras.{place}{name}"
    short = name.removesuffix("Config")
    public = getattr(sys.modules.get("nameplate"), "__all__", ())
    return f"nameplate.{short}" if module.startswith("nameplate.") and short in public else name


def _with_article(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def _stranger(value: Any, hint: Any) -> str:
    """Return what does not fit: the first wrong one of a list, a word that is none of those there are, or the kind."""
    for option in _options(hint):
        if _is_enum(option) and isinstance(value, str):
            return shown(value)
        origin, inner = typing.get_origin(option), typing.get_args(option)
        if inner and isinstance(value, list | tuple) and isinstance(origin, type) and _is_list(origin, inner):
            wrong = [each for each in value if not _fits(each, inner[0])]
            if wrong:
                return _with_kind(wrong[0])
        if inner and isinstance(value, Mapping) and isinstance(origin, type) and issubclass(origin, Mapping):
            wrong = [key for key, each in value.items() if not (_fits(key, inner[0]) and _fits(each, inner[1]))]
            return f"{shown(wrong[0])}: {_with_kind(value[wrong[0]])}"
    return kind_of(value)


def _with_kind(value: Any) -> str:
    return f"{shown(value)} ({type(value).__name__})"


def _is_list(origin: type, inner: tuple[Any, ...]) -> bool:
    several = issubclass(origin, collections.abc.Iterable) and not issubclass(origin, Mapping)
    return several and (origin is not tuple or inner[-1] is ...)
