"""The edits of `model.edits`, made: plain data becomes the verbs of the library, in the order of the list."""

from __future__ import annotations

import inspect
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import keras

import nameplate
from nameplate.data.targets import TargetError, bound, call, resolver
from nameplate.errors import NameplateError, cause
from nameplate.formats import keras_config
from nameplate.graph.keras_private import undisturbed
from nameplate.graph.model_weights import trained
from nameplate.naming.keras_objects import TARGET, arguments_of
from nameplate.naming.names import did_you_mean
from nameplate.naming.policy import Policy
from nameplate.section import ConfigError
from trainer.models.edits import VERBS

_LAYERS = "keras.layers"
_KINDS: dict[str, Any] = {  # the modules of Keras whose classes an edit may name without trust
    _LAYERS: keras.Layer,
    "keras.initializers": keras.initializers.Initializer,
    "keras.regularizers": keras.regularizers.Regularizer,
    "keras.constraints": keras.constraints.Constraint,
}


Given = dict[str, Any]  # the arguments of an edit
Options = dict[str, Any]  # those that every edit of a graph takes
_HEAD = re.compile(r"^nothing was (?:edited|renamed):\n *")  # the key says so


@dataclass(frozen=True)
class Source:
    """Where edits are from, which decides what they may name beside Keras' plain layers."""

    trust: Sequence[str] = ()  # packages whose classes may be made
    stored: bool = False  # in a run or a checkpoint, perhaps of someone else


def refuse_unusable_layers(edits: Sequence[Any], source: Source) -> None:
    """Refuse layers that may not be made, do not exist or do not take their arguments, before anything is built.

    Each is made once, without weights, since only its constructor knows what it takes.

    Raises:
        ConfigError: with every such layer.
    """
    problems = []
    for key, _, arguments in _items(edits):
        for name in ("with", "layer"):
            for inner, value in _listed(f"{key}.{name}", arguments.get(name, [])):
                try:
                    with undisturbed():
                        _layer(inner, value, source)
                except NameplateError as error:
                    problems.append(str(error))
    if problems:
        raise ConfigError(problems)


def apply_edits(
    model: keras.Model, edits: Sequence[Any], *, heads: Mapping[str, int], seed: int, naming: Policy, source: Source
) -> keras.Model:
    """Return the model after all edits, made in the caller's strategy scope; new weights depend on the seed.

    Args:
        model: not compiled; its layers may be frozen, and nothing else of it is changed.
        edits: of a configuration, whose form is checked.
        heads: what is attached where an edit does not say it: the outputs of the data with their units.
        seed: of the run.
        naming: what the names of new layers must satisfy.
        source: of the edits. Those of a run that is trained are also verified as the verbs do by default.

    Raises:
        ConfigError: with every edit that cannot be made, without those that use a name of one before that failed.
    """
    refuse_unusable_layers(edits, source)
    problems: list[str] = []
    missing: set[str] = set()  # names that failed edits have and the model lacks
    options: Options = {"policy": naming, "verify": not source.stored}
    if source.stored:
        options["report"] = lambda report: None  # the run has shown it
    for key, verb, arguments in _items(edits):
        keras.utils.set_random_seed(zlib.crc32(f"{seed}/{key}".encode()))
        given = {name: _value(f"{key}.{name}", name, value, source) for name, value in arguments.items()}
        if verb == "attach":
            given.setdefault("heads", dict(heads))
        try:
            model = _APPLY[verb](model, given, options)
        except NameplateError as error:
            if not _use(arguments, missing):
                text = _HEAD.sub("", str(error)).replace("\n", "\n  ")
                problems.append(f"{key}: {text}")
            missing |= {*_names_in(list(arguments.values())), *(heads if verb == "attach" else ())} - set(
                nameplate.layers(model)
            )
    if not problems and any("freeze" in item for item in edits) and not trained(model):
        problems.append("model.edits: every layer is frozen; leave one to train")
    if problems:
        raise ConfigError(problems)
    return model


def _items(edits: Sequence[Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the key, the verb and the arguments of each edit."""
    for place, item in enumerate(edits):
        for verb, given in item.items():
            yield f"model.edits[{place}].{verb}", verb, VERBS[verb].arguments(given)


def _use(arguments: Mapping[str, Any], missing: set[str]) -> bool:
    """Return whether an edit uses one of these names, or that of a layer in it or of a head, such as `label_pool`."""
    used = _names_in(list(arguments.values()))
    return any(re.match(rf"{re.escape(name)}(?![A-Za-z0-9])", own) for own in used for name in missing)


def _names_in(value: Any) -> Iterator[str]:
    """Yield the names of layers in the arguments of an edit; of a new layer, its own."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _names_in([value.get("name")] if TARGET in value else [*value, *value.values()])
    elif isinstance(value, list):
        for inner in value:
            yield from _names_in(inner)


# ---- the verbs --------------------------------------------------------------------------------------------------


def _rename(model: keras.Model, given: Given, options: Options) -> keras.Model:
    to = given["to"]
    return nameplate.rename(model, to if isinstance(to, Mapping) else [tuple(rule) for rule in to])


def _replace(model: keras.Model, given: Given, options: Options) -> keras.Model:
    at = tuple(given["at"]) if isinstance(given["at"], list) else given["at"]
    return nameplate.replace(model, {at: given["with"]}, rebuild=given.get("rebuild", False), **options)


def _insert(model: keras.Model, given: Given, options: Options) -> keras.Model:
    return nameplate.insert(model, **given, **options)


def _remove(model: keras.Model, given: Given, options: Options) -> keras.Model:
    layers = given.pop("layers")
    return nameplate.remove(model, *([layers] if isinstance(layers, str) else layers), **given, **options)


def _attach(model: keras.Model, given: Given, options: Options) -> keras.Model:
    return nameplate.attach(model, **given)


def _extract(model: keras.Model, given: Given, options: Options) -> keras.Model:
    return nameplate.extract(model, **given, verify=options["verify"], report=options.get("report"))


def _freeze(model: keras.Model, given: Given, options: Options) -> keras.Model:
    nameplate.set_trainable(model, given["layers"], trainable=False)
    return model


def _unfreeze(model: keras.Model, given: Given, options: Options) -> keras.Model:
    nameplate.set_trainable(model, given["layers"], trainable=True)
    return model


_APPLY: dict[str, Callable[[keras.Model, Given, Options], keras.Model]] = {
    "rename": _rename,
    "replace": _replace,
    "insert": _insert,
    "remove": _remove,
    "attach": _attach,
    "extract": _extract,
    "freeze": _freeze,
    "unfreeze": _unfreeze,
}


# ---- layers from plain data -------------------------------------------------------------------------------------


def _value(key: str, name: str, value: Any, source: Source) -> Any:
    """Return an argument of an edit, with the layers that it describes."""
    if name not in ("with", "layer"):
        return value
    layers = [_layer(inner, each, source) for inner, each in _listed(key, value)]
    return layers if isinstance(value, list) else layers[0]


def _listed(key: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, list):
        return [(f"{key}[{place}]", each) for place, each in enumerate(value)]
    return [(key, value)]


def _layer(key: str, value: Mapping[str, Any], source: Source) -> keras.Layer:
    """Return a new layer that plain data describes.

    Raises:
        TargetError: it may not be made, does not exist or does not take the arguments; the message has the key.
    """
    made = _made(key, value, source)
    if not isinstance(made, keras.Layer):
        raise TargetError(f"{key}: {value[TARGET]} makes a {type(made).__name__}; an edit needs a keras.Layer")
    return made


def _made(key: str, value: Mapping[str, Any], source: Source) -> Any:
    target = str(value[TARGET])
    path = target if "." in target else f"{_LAYERS}.{target}"
    module, _, name = path.rpartition(".")
    plain = module in _KINDS and keras_config.is_plain(module, name)
    found = _of_keras(key, module, name) if plain else _trusted(key, path, source)
    plain = plain and "keras" not in source.trust
    given = {own: _argument(f"{key}.{own}", each, source, plain=plain) for own, each in arguments_of(value).items()}
    if plain and (files := keras_config.opened(given)):
        raise TargetError(
            f"{key}.{files[0]}: {given[files[0]]!r:.80} is a file to open; give a list of words, or trust=[keras]"
        )
    try:
        if module not in _KINDS:
            return call(found, path, offered={}, given=given)
        return found(**bound(found, path, offered={}, given=given))
    except TargetError as error:
        raise TargetError(f"{key}: {error}") from error
    except NameplateError:
        raise
    except Exception as error:  # a constructor may raise anything for a value that it does not take
        raise TargetError(f"{key}: {path}: {cause(error)}") from error


def _of_keras(key: str, module: str, name: str) -> Any:
    """Return a class of one of Keras' modules."""
    classes = {own: found for own, found in vars(import_module(module)).items() if inspect.isclass(found)}
    if not issubclass(classes.get(name, object), _KINDS[module]):
        raise TargetError(f"{key}.{TARGET}: {module} has no {name!r}.{did_you_mean(name, classes)}")
    return classes[name]


def _trusted(key: str, path: str, source: Source) -> Any:
    """Return what a package of `trust` has under a dotted name."""
    module, _, name = path.rpartition(".")
    if module == _LAYERS and "keras" not in source.trust:
        classes = [own for own, found in vars(keras.layers).items() if inspect.isclass(found)]
        if name in classes:
            what = "could run code or open files; to make it all the same, trust=[keras]"
            raise TargetError(f"{key}.{TARGET}: {path!r} {what}")
        raise TargetError(f"{key}.{TARGET}: {module} has no {name!r}.{did_you_mean(name, classes)}")
    try:
        return resolver(source.trust, stored=source.stored, instead=f"{_LAYERS}.*")(path)
    except TargetError as error:
        raise TargetError(f"{key}.{error}") from error


def _argument(key: str, value: Any, source: Source, *, plain: bool) -> Any:
    """Return an argument in which each mapping with a `_target_` is what that makes."""
    if isinstance(value, list):
        return [_argument(f"{key}[{place}]", each, source, plain=plain) for place, each in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    if TARGET in value:
        return _made(key, value, source)
    if plain:
        raise TargetError(
            f"{key}: {dict(value)!r:.80} would become an object; give plain values or {{{TARGET}: CLASS}}"
        )
    return dict(value)
