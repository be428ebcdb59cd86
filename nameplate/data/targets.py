"""What a `_target_` may name: our architectures, Keras' by name, and what the user trusts on the command line.

A dotted name in a configuration is data until it is imported, and importing runs code. So there is a list of names that
build a model and do nothing else; any other counts only where its package is trusted, on this command line alone.
"""

from __future__ import annotations

import functools
import inspect
import keyword
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from nameplate.errors import NameplateError
from nameplate.naming.names import did_you_mean

_ARCHITECTURES = "mlp convnet resnet vit two_tower one_tower subclassed applications"  # their registry is above this
OURS = frozenset(f"trainer.models.{name}.build" for name in _ARCHITECTURES.split())
_FORMER = {path.replace("trainer.models.", "models.zoo."): path for path in OURS}  # in runs and files of before 0.2
# No prefix such as `keras.layers.`: its TFSMLayer runs a program from a file, its StringLookup opens any path.
_APPLICATIONS = """
    ConvNeXtBase ConvNeXtLarge ConvNeXtSmall ConvNeXtTiny ConvNeXtXLarge DenseNet121 DenseNet169 DenseNet201
    EfficientNetB0 EfficientNetB1 EfficientNetB2 EfficientNetB3 EfficientNetB4 EfficientNetB5 EfficientNetB6
    EfficientNetB7 EfficientNetV2B0 EfficientNetV2B1 EfficientNetV2B2 EfficientNetV2B3 EfficientNetV2L EfficientNetV2M
    EfficientNetV2S InceptionResNetV2 InceptionV3 MobileNet MobileNetV2 MobileNetV3Large MobileNetV3Small NASNetLarge
    NASNetMobile ResNet101 ResNet101V2 ResNet152 ResNet152V2 ResNet50 ResNet50V2 VGG16 VGG19 Xception
"""
KERAS = frozenset(f"keras.applications.{name}" for name in _APPLICATIONS.split())


class TargetError(NameplateError):
    """A `_target_` that may not be used, does not exist, or does not take what it would get."""


def current(path: str) -> str:
    """Return what an architecture is called today, for the name that an older run has it under; others as they are."""
    return _FORMER.get(path, path)


def resolver(trust: Sequence[str], *, stored: bool = False) -> Callable[[str], Any]:
    """Return the function that turns a dotted name into its object, for these trusted packages.

    Names that a run or a checkpoint brings along are `stored`: of these only our own architectures are resolved without
    trust, whatever a command line may name. The function raises TargetError for any other name, before anything is
    imported.
    """
    prefixes = tuple(f"{package.rstrip('.')}." for package in trust)
    listed = OURS if stored else OURS | KERAS

    def resolve(path: str) -> Any:
        parts = path.split(".")
        if len(parts) < 2 or not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
            raise TargetError(f"_target_: {path!r} is not a dotted name like my_package.models.build")
        trusted = path.startswith(prefixes)
        path = path if trusted else current(path)
        if not trusted and path not in listed:
            raise TargetError(_refusal(path, parts[0], prefixes, stored=stored))
        found = _load(path, parts)
        return found if trusted or path not in KERAS else _without_files(found, path)

    return resolve


def _refusal(path: str, package: str, prefixes: Sequence[str], *, stored: bool) -> str:
    if stored:
        return (
            f"_target_: {path!r} is named by a stored configuration, which builds the project's own architectures and "
            f"is not among what may be run. If you would run its author's code, say so: --trust {package} "
            f"(in Python trust=[{package!r}])"
        )
    allowed = ["trainer.models.*.build", "keras.applications.*", *(f"{prefix}*" for prefix in prefixes)]
    return (
        f"_target_: {path!r} is not among what may be run: {', '.join(allowed)}. "
        f"If you trust it, say so on the command line: trust=[{package}]"
    )


def _without_files(constructor: Callable[..., Any], path: str) -> Callable[..., Any]:
    """Return one of Keras' architectures that opens and downloads nothing, and takes plain values alone."""

    @functools.wraps(constructor)
    def build(**arguments: Any) -> Any:
        problems = [
            f"arguments.{name}: {value!r:.80} would be made into an object; plain values are taken without trust"
            for name, value in arguments.items()
            if isinstance(value, Mapping)
        ]
        if arguments.get("weights", "imagenet") is not None:
            problems.append(
                f"arguments.weights: {arguments.get('weights', 'imagenet')!r:.80} is a file to open or to download; "
                "give null for random weights, or trust=[keras]"
            )
        if problems:
            raise TargetError("\n  ".join([f"{path} is not called:", *problems]))
        return constructor(**arguments)

    return build


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
