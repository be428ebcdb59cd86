"""What a `_target_` may name: our architectures, Keras' listed ones, and packages trusted on the command line.

A dotted name in a configuration is data until it is imported, and importing runs code. So the names that are resolved
without trust are listed one by one: they build a model and do nothing else. Any other name needs its package to be
trusted, on this command line.
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

_ARCHITECTURES = "mlp convnet resnet vit two_tower one_tower subclassed applications"  # the registry is a layer above
OURS = frozenset(f"trainer.models.{name}.build" for name in _ARCHITECTURES.split())
_FORMER = {path.replace("trainer.models.", "models.zoo."): path for path in OURS}  # in runs and files before 0.2
# Not a prefix such as `keras.layers.`: TFSMLayer runs a program from a file, StringLookup opens any path.
_APPLICATIONS = """
    ConvNeXtBase ConvNeXtLarge ConvNeXtSmall ConvNeXtTiny ConvNeXtXLarge DenseNet121 DenseNet169 DenseNet201
    EfficientNetB0 EfficientNetB1 EfficientNetB2 EfficientNetB3 EfficientNetB4 EfficientNetB5 EfficientNetB6
    EfficientNetB7 EfficientNetV2B0 EfficientNetV2B1 EfficientNetV2B2 EfficientNetV2B3 EfficientNetV2L EfficientNetV2M
    EfficientNetV2S InceptionResNetV2 InceptionV3 MobileNet MobileNetV2 MobileNetV3Large MobileNetV3Small NASNetLarge
    NASNetMobile ResNet101 ResNet101V2 ResNet152 ResNet152V2 ResNet50 ResNet50V2 VGG16 VGG19 Xception
"""
KERAS = frozenset(f"keras.applications.{name}" for name in _APPLICATIONS.split())


class TargetError(NameplateError):
    """A `_target_` that is not trusted, does not exist, or does not take the arguments."""


def current(path: str) -> str:
    """Return the current name of an architecture that an older run names; any other name unchanged."""
    return _FORMER.get(path, path)


def resolver(trust: Sequence[str], *, stored: bool = False, instead: str = "") -> Callable[[str], Any]:
    """Return the function that resolves a dotted name to its object, given the trusted packages.

    `stored` is for names that come from a run or a checkpoint: without trust, these may only be our own architectures.
    With `instead`, what may be named in the place of models, in words, only the trusted packages are resolved.
    The function raises TargetError for any other name before it imports anything.
    """
    prefixes = tuple(f"{package.rstrip('.')}." for package in trust)
    listed = frozenset() if instead else OURS if stored else OURS | KERAS

    def resolve(path: str) -> Any:
        parts = path.split(".")
        if len(parts) < 2 or not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
            raise TargetError(f"_target_: {path!r} is not a dotted name like my_package.models.build")
        trusted = path.startswith(prefixes)
        path = path if trusted else current(path)
        if not trusted and path not in listed:
            raise TargetError(_refusal(path, parts[0], prefixes, stored=stored, instead=instead))
        target = _load(path)
        return target if trusted or path not in KERAS else _without_files(target, path)

    return resolve


def _refusal(path: str, package: str, prefixes: Sequence[str], *, stored: bool, instead: str) -> str:
    if stored:
        return (
            f"_target_: {path!r} is named by a stored configuration, and only the project's own architectures are "
            f"built from one. To run its author's code, trust it: --trust {package} "
            f"(in Python trust=[{package!r}])"
        )
    ours = [instead] if instead else ["trainer.models.*.build", "keras.applications.*"]
    allowed = [*ours, *(f"{prefix}*" for prefix in prefixes)]
    return (
        f"_target_: {path!r} is not among what may be run: {', '.join(allowed)}. "
        f"To run it, trust it on the command line: trust=[{package}]"
    )


def _without_files(constructor: Callable[..., Any], path: str) -> Callable[..., Any]:
    """Wrap one of Keras' architectures to open and download nothing, and to take only plain values."""

    @functools.wraps(constructor)
    def build(**arguments: Any) -> Any:
        problems = [
            f"arguments.{name}: {value!r:.80} would become an object; only plain values are accepted without trust"
            for name, value in arguments.items()
            if isinstance(value, Mapping)
        ]
        if arguments.get("weights", "imagenet") is not None:
            problems.append(
                f"arguments.weights: {arguments.get('weights', 'imagenet')!r:.80} is a file to open or download; "
                "give null for random weights, or trust=[keras]"
            )
        if problems:
            raise TargetError("\n  ".join([f"{path} is not called:", *problems]))
        return constructor(**arguments)

    return build


def call(function: Callable[..., Any], path: str, *, offered: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """Call `function` with the `given` arguments, and with those `offered` that it has a parameter for.

    Raises:
        TargetError: `given` arguments that it does not take, or required ones that are missing; or the error that it
            raised itself, and where.
    """
    arguments = bound(function, path, offered=offered, given=given)
    try:
        return function(**arguments)
    except NameplateError:
        raise
    except Exception as error:
        *_, frame = traceback.extract_tb(error.__traceback__)
        where = f"{frame.filename}, line {frame.lineno}, in {frame.name}"
        raise TargetError(f"{path} raised {type(error).__name__}: {error}\n  at {where}") from error


def bound(
    function: Callable[..., Any], path: str, *, offered: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments with which `call` would call a function; raise TargetError for those that it cannot."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return dict(given)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    unknown = [] if takes_any else sorted(given.keys() - parameters.keys())
    arguments = {name: value for name, value in offered.items() if name in parameters} | dict(given)
    required = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    missing = [name for name in required if name not in arguments]
    problems = [f"it takes no {name!r}.{did_you_mean(name, parameters)}" for name in unknown]
    nor = f", which is neither given nor one of {', '.join(offered)}" if offered else ""
    problems += [f"it needs {name!r}{nor}" for name in missing]
    if problems:
        raise TargetError("\n  ".join([f"{path}({', '.join(parameters)}) cannot be called:", *problems]))
    return arguments


def _load(path: str) -> Any:
    parts = path.split(".")
    for length in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:length])
        try:
            module = import_module(name)
        except ModuleNotFoundError as error:
            if error.name and not name.startswith(error.name):
                raise TargetError(f"_target_: {path!r} cannot be imported: {error}") from error
            continue
        return _attribute(module, parts[length:], path)
    raise TargetError(f"_target_: no module {parts[0]!r} for {path!r}; is it installed, or on PYTHONPATH?")


def _attribute(target: Any, names: list[str], path: str) -> Any:
    for name in names:
        if inspect.ismodule(target) and not hasattr(target, name):
            raise TargetError(
                f"_target_: {target.__name__} has no {name!r}, wanted by {path!r}.{did_you_mean(name, dir(target))}"
            )
        target = getattr(target, name, None)
        if inspect.ismodule(target):  # a module imported for a trusted one's own use is not itself trusted
            raise TargetError(f"_target_: {path!r} leads through the module {target.__name__}; name that module itself")
    if not callable(target):
        raise TargetError(f"_target_: {path!r} is not callable but {type(target).__name__}")
    return target
