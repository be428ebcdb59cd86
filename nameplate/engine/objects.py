"""Objects that a configuration names, made: losses, metrics, optimizers and schedules of Keras or of one's own.

`nameplate.naming.keras_objects` says what a value may be. A name of Keras' makes that class, with plain arguments;
anything else is imported, and that needs its package to be trusted on the command line.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import keras

from nameplate.data.targets import TargetError, bound, call, resolver
from nameplate.errors import cause
from nameplate.naming.keras_objects import LOSSES, METRICS, TARGET, Kind, arguments_of, target_of
from nameplate.section import ConfigError

Named = tuple[Kind, str, Any]  # a kind, the key of the configuration, its value

_NOTHING: Mapping[str, Any] = {}
_BASES = {
    "loss": "losses.Loss",
    "metric": "metrics.Metric",
    "optimizer": "optimizers.Optimizer",
    "schedule": "optimizers.schedules.LearningRateSchedule",
    "callback": "callbacks.Callback",
    "augmentation": "layers.Layer",
}


def refuse_unusable(values: Iterable[Named], *, trust: Sequence[str]) -> None:
    """Refuse values whose class or function is not trusted, does not exist, or does not take the arguments.

    `RunConfig.check` has done so for those of Keras; this imports those of one's own, and makes none.

    Raises:
        ConfigError: with every problem.
    """
    problems: list[str] = []
    for kind, key, value in values:
        if kind.keras_class(value) in kind.classes:
            continue
        with _collected(problems):
            found = _found(kind, key, value, trust)
            if _as_it_is(kind, key, found, value) is None:
                _prefixed(key, bound, found, value, dict.fromkeys(kind.offered))
    if problems:
        raise ConfigError(problems)


def make(kind: Kind, key: str, value: Any, *, trust: Sequence[str], offered: Mapping[str, Any] = _NOTHING) -> Any:
    """Return a new object that a value names; a function of (targets, outputs) as it is, with its arguments.

    Arguments that are `offered` are passed to what has a parameter for them, unless the value gives them itself.

    Raises:
        TargetError: the class is not trusted, raises an error, or makes something else; the message has the key.
    """
    arguments = arguments_of(value)
    own = kind.keras_class(value)
    if own is not None and own in kind.classes:
        takes = kind.takes(value)
        given = {name: each for name, each in offered.items() if name in takes} | arguments
        try:
            return getattr(import_module(kind.module), own)(**given)
        except Exception as error:  # a constructor may raise anything for a value that it does not take
            raise TargetError(f"{key}: {own}: {cause(error)}") from error
    found = _found(kind, key, value, trust)
    made = _as_it_is(kind, key, found, value)
    if made is None:
        nested = {name: _nested(each, trust) for name, each in arguments.items()}
        made = _prefixed(key, call, found, {TARGET: target_of(value), **nested}, offered)
    if not _is_of(kind, made):
        base = f"keras.{_BASES[kind.noun]}"
        expected = f"{base}, or be a function of (y_true, y_pred)" if _is_function_kind(kind) else base
        raise TargetError(f"{key}: {target_of(value)} returned {type(made).__name__}; it must return a {expected}")
    return made


def make_all(makers: Iterable[Callable[[], Any]]) -> list[Any]:
    """Return what every maker makes.

    Raises:
        ConfigError: with the `TargetError` of each that fails.
    """
    problems: list[str] = []
    made = []
    for maker in makers:
        with _collected(problems):
            made.append(maker())
    if problems:
        raise ConfigError(problems)
    return made


@contextmanager
def _collected(problems: list[str]) -> Iterator[None]:
    """Inside, a `TargetError` becomes a problem of a list."""
    try:
        yield
    except TargetError as error:
        problems.append(str(error))


def _found(kind: Kind, key: str, value: Any, trust: Sequence[str]) -> Any:
    """Return the class or function that a value names, if it is trusted."""
    try:
        return resolver(trust, instead=f"{kind.module}.*")(str(target_of(value)))
    except TargetError as error:
        raise TargetError(f"{key}.{error}") from error


def _as_it_is(kind: Kind, key: str, found: Any, value: Any) -> Any:
    """Return a function of targets and outputs with its arguments; None for what is to be called with them alone.

    A function that can be called with the arguments alone makes a loss or metric; one that needs two more is one.
    """
    arguments = arguments_of(value)
    if inspect.isclass(found) or not _is_function_kind(kind) or _binds(found, (), arguments):
        return None
    if _binds(found, (None, None), arguments):
        return functools.wraps(found)(lambda y_true, y_pred: found(y_true, y_pred, **arguments)) if arguments else found
    parameters = ", ".join(inspect.signature(found).parameters)
    raise TargetError(
        f"{key}: {target_of(value)}({parameters}) takes neither {', '.join(arguments) or 'nothing'} alone nor "
        "targets and outputs before it"
    )


def _binds(found: Any, places: tuple[Any, ...], arguments: Mapping[str, Any]) -> bool:
    try:
        inspect.signature(found).bind(*places, **arguments)
    except TypeError:
        return False
    except ValueError:  # written in C, without a signature
        return not places
    return True


def _nested(value: Any, trust: Sequence[str]) -> Any:
    """Return an argument with each mapping that has a `_target_` replaced by what that makes."""
    if isinstance(value, Mapping):
        inner = {name: _nested(each, trust) for name, each in value.items() if name != TARGET}
        target = value.get(TARGET)
        return inner if target is None else call(resolver(trust)(str(target)), str(target), offered={}, given=inner)
    return [_nested(each, trust) for each in value] if isinstance(value, list) else value


def _prefixed(key: str, verb: Callable[..., Any], found: Any, value: Any, offered: Mapping[str, Any]) -> Any:
    """Return what `call` or `bound` returns for a class or function and its arguments; errors have the key."""
    try:
        return verb(found, str(target_of(value)), offered=offered, given=arguments_of(value))
    except TargetError as error:
        raise TargetError(f"{key}: {error}") from error


def _is_function_kind(kind: Kind) -> bool:
    return kind is LOSSES or kind is METRICS


def _is_of(kind: Kind, made: Any) -> bool:
    if _is_function_kind(kind):
        return callable(made) and not inspect.isclass(made)
    base = functools.reduce(getattr, _BASES[kind.noun].split("."), keras)
    return isinstance(made, base)
