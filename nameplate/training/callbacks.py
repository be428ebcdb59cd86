"""Keras callbacks: the state that they keep from epoch to epoch, for an exact resume, and which hooks they use."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from nameplate.checkpoint import durable, plain_data
from nameplate.checkpoint.errors import DamagedError
from nameplate.engine.objects import make, make_all
from nameplate.engine.private import profiles_batches
from nameplate.errors import NameplateError, worded
from nameplate.naming.keras_objects import CALLBACK_PATHS, CALLBACKS
from nameplate.naming.names import did_you_mean
from nameplate.section import ConfigError
from nameplate.training.progress import Progress

_NOT_STATE = ("model", "params", "_model")
_OPERATION = "keras.ops"  # type of a comparison that a callback chose in its first epoch
_MEMBER, _CONTAINER = "enum", "container"
_LONGEST = 1 << 20  # characters of a container
Plain = dict[str, list[str]]  # attribute -> [type, text]; text, because JSON has no infinity


def callback_list(
    model: keras.Model, callbacks: Sequence[keras.callbacks.Callback], *, epochs: int, steps: int
) -> keras.callbacks.CallbackList:
    """Return Keras' list of these callbacks and a History, set up for the model and the length of the run."""
    return keras.callbacks.CallbackList(
        list(callbacks), add_history=True, add_progbar=False, model=model, epochs=epochs, steps=steps, verbose=0
    )


def callbacks_of(
    model: keras.Model,
    callbacks: Sequence[keras.callbacks.Callback] | keras.callbacks.Callback | None,
    *,
    steps: int,
) -> keras.callbacks.CallbackList:
    """Return Keras' list of the callbacks of an evaluation or prediction; one that is given as such as it is."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks
    return keras.callbacks.CallbackList(
        listed(callbacks), add_history=False, add_progbar=False, model=model, epochs=1, steps=steps, verbose=0
    )


def listed(
    callbacks: Sequence[keras.callbacks.Callback] | keras.callbacks.Callback | None,
) -> Sequence[keras.callbacks.Callback]:
    """Return callbacks that were given as one, as several or as Keras' list, in a list."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return [each for each in callbacks.callbacks if not isinstance(each, keras.callbacks.ProgbarLogger)]
    listed = callbacks if isinstance(callbacks, Sequence) else () if callbacks is None else (callbacks,)
    if wrong := [each for each in listed if not isinstance(each, keras.callbacks.Callback)]:
        raise NameplateError(
            f"callbacks: {wrong[0]!r:.80} is not a callback; give instances of keras.callbacks.Callback"
        )
    return list(listed)


def configured_callbacks(
    values: Mapping[str, Any], *, directory: Path | None, trust: Sequence[str], known: Sequence[str]
) -> dict[str, keras.callbacks.Callback]:
    """Return the callbacks that a configuration names, in its order.

    Args:
        values: name to a class and its arguments; None: no callback of this name.
        directory: of the run, where Keras' callbacks write; None: those that write are left out.
        trust: packages whose callbacks may be made.
        known: the values that the run measures at the end of an epoch.

    Raises:
        ConfigError: with every callback that cannot be made, or that monitors what is not measured.
    """

    def maker(name: str, value: Any) -> Callable[[], keras.callbacks.Callback]:
        argument = CALLBACK_PATHS.get(CALLBACKS.keras_class(value) or "")
        if argument and directory is not None:
            value = {**value, argument: str(directory / str(value[argument]))}
            value |= {"append": True} if argument == "filename" else {}  # a resume goes on with the file
        return lambda: make(CALLBACKS, f"callbacks.{name}", value, trust=trust)

    chosen = {
        name: value
        for name, value in values.items()
        if value is not None and (directory is not None or CALLBACKS.keras_class(value) not in CALLBACK_PATHS)
    }
    made = dict(zip(chosen, make_all(maker(*each) for each in chosen.items()), strict=True))
    unknown = {
        name: each.monitor
        for name, each in made.items()
        if CALLBACKS.keras_class(chosen[name]) and getattr(each, "monitor", None) not in (None, *known)
    }
    if unknown:
        raise ConfigError(
            [
                f"callbacks.{name}.monitor: {value!r} is not measured.{did_you_mean(value, known)} "
                f"There are {', '.join(known)}"
                for name, value in unknown.items()
            ]
        )
    return made


def cut_tables(callbacks: Iterable[keras.callbacks.Callback], *, epoch: int) -> None:
    """Remove from the files of CSVLoggers the rows of epochs that a resumed run trains again, `epoch` and later."""
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.CSVLogger) and Path(callback.filename).is_file():
            path = Path(callback.filename)
            head, *rows = path.read_text("utf-8").splitlines(keepends=True) or [""]
            numbers_of = [(row, row.partition(callback.sep)[0]) for row in rows if row.endswith("\n")]
            kept = [row for row, number in numbers_of if number.isdecimal() and int(number) < epoch]
            durable.replace_file(path, "".join([head, *kept]).encode())


def early_end(callbacks: keras.callbacks.CallbackList, progress: Progress) -> list[str]:
    """Return lines on why a training ended before its last epoch, and which weights remain; none if it did not."""
    epochs = progress.history.get("epoch", [])
    if not progress.finished or not epochs:
        return []
    last = epochs[-1]
    early = [each for each in callbacks.callbacks if isinstance(each, keras.callbacks.EarlyStopping)]
    stopping = next((each for each in early if each.stopped_epoch == last > 0), None)
    if stopping is None:
        return [
            f"stopped after epoch {last + 1}: a callback set stop_training; the model has the weights of that epoch"
        ]
    best = stopping.best_epoch + 1
    why = f"{stopping.monitor} has not improved on {float(stopping.best):.4f} of epoch {best}"
    lines = [f"stopped early after epoch {last + 1}: {why} (patience {stopping.patience})"]
    if stopping.restore_best_weights:
        return [*lines, f"  the model has the weights of epoch {best}"]
    key = worded(keys="fit.early_stopping.restore_best=true", arguments="restore_best_weights=True")
    return [*lines, f"  the model has the weights of epoch {last + 1}; with {key} it has those of epoch {best}"]


class CallbackState:
    """The attributes of callbacks that have changed since they were created.

    An attribute that has not changed is a setting: after a resume it has the value that this process configured.
    """

    def __init__(
        self, callbacks: Sequence[keras.callbacks.Callback], named: Mapping[str, keras.callbacks.Callback] | None = None
    ) -> None:
        """Take callbacks, known by their places, and others that are `named`."""
        self._callbacks = {f"{place}_{type(each).__name__}": each for place, each in enumerate(callbacks)}
        self._callbacks |= {f"{name}_{type(each).__name__}": each for name, each in (named or {}).items()}
        self._first = {key: _plain(callback) for key, callback in self._callbacks.items()}

    def capture(self) -> tuple[dict[str, Plain], dict[str, np.ndarray]]:
        """Return the plain values and arrays among the attributes of each callback, by its index and class.

        Plain values are numbers, strings, members of enumerations, and lists, tuples, sets and dictionaries of them.
        """
        plain: dict[str, Plain] = {}
        arrays: dict[str, np.ndarray] = {}
        for key, callback in self._callbacks.items():
            first = self._first[key]
            plain[key] = {name: each for name, each in _plain(callback).items() if first.get(name) != each}
            for name, value in vars(callback).items():
                if _is_arrays(value):
                    arrays |= {f"callbacks/{key}/{name}/{i}": np.asarray(each) for i, each in enumerate(value)}
        return plain, arrays

    def restore(self, plain: Mapping[str, Plain], arrays: Mapping[str, np.ndarray]) -> None:
        """Set the attributes as they were when captured; a callback that was not there then keeps its own."""
        for key, callback in self._callbacks.items():
            if key not in plain:
                continue
            saved = (self._first[key] | plain[key]).items()
            found = {name: _decode(encoded, getattr(callback, name, None)) for name, encoded in saved}
            for name, value in (found | _listed(arrays, f"callbacks/{key}/")).items():
                if _is_captured(name) and (name in plain[key] or not _is_live(callback, name)):
                    _set(callback, name, value)


def _is_live(callback: keras.callbacks.Callback, name: str) -> bool:
    """Say whether `on_train_begin` has set an attribute to what no checkpoint holds, such as an open file.

    Whether a CSVLogger writes the names of columns depends on its file alone.
    """
    value = getattr(callback, name, None)
    if isinstance(callback, keras.callbacks.CSVLogger) and name == "append_header":
        return True
    return not _encode(value) and not _is_arrays(value)


def _set(callback: keras.callbacks.Callback, name: str, value: Any) -> None:
    """Set an attribute; a list or dictionary is refilled, because others may hold it too."""
    current = getattr(callback, name, None)
    if type(current) is type(value) is list:
        current[:] = value
    elif type(current) is type(value) is dict:
        current.clear()
        current.update(value)
    else:
        setattr(callback, name, value)


def _plain(callback: keras.callbacks.Callback) -> Plain:
    encoded = {name: _encode(value) for name, value in vars(callback).items() if name not in _NOT_STATE}
    return {name: each for name, each in encoded.items() if each}


def _is_captured(name: str) -> bool:
    """Say whether `capture` could have written an attribute of this name; a checkpoint may name any other."""
    return name.isidentifier() and not name.startswith("__") and name not in _NOT_STATE


def _listed(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, list[np.ndarray]]:
    """Return lists of arrays by attribute, from arrays by attribute and index."""
    found: dict[str, dict[int, np.ndarray]] = {}
    for path, array in arrays.items():
        if path.startswith(prefix):
            name, _, index = path.removeprefix(prefix).rpartition("/")
            found.setdefault(name, {})[int(index)] = np.asarray(array)
    return {name: [each[index] for index in sorted(each)] for name, each in found.items()}


def _is_arrays(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, np.ndarray) for each in value)


def _encode(value: Any) -> list[str]:
    """Return the type and text of a plain value, empty of any other."""
    if isinstance(value, np.number | np.bool_):
        value = value.item()
    if value is None or type(value) in (bool, int, float, str):
        return [type(value).__name__, repr(value) if isinstance(value, float) else str(value)]
    if isinstance(value, enum.Enum):
        return [_MEMBER, value.name]
    if isinstance(value, list | tuple | set | dict) and not _is_arrays(value):
        return _encode_container(value)
    name = getattr(value, "__name__", "")
    return [_OPERATION, name] if name and getattr(keras.ops, name, None) is value else []


def _encode_container(value: Any) -> list[str]:
    """Return a container of plain values as JSON, empty if it holds anything else or is too long for a manifest."""
    try:
        text = plain_data.encode(_tagged(value))
    except (TypeError, ValueError, RecursionError):
        return []
    return [_CONTAINER, text] if len(text) <= _LONGEST else []


def _tagged(value: Any) -> Any:
    """Return a value as JSON can hold it; what JSON would change is tagged with its type."""
    if isinstance(value, np.number | np.bool_):
        value = value.item()
    if type(value) is float and not math.isfinite(value):
        return {"$float": repr(value)}
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is list:
        return [_tagged(each) for each in value]
    if type(value) in (tuple, set):
        return {f"${type(value).__name__}": [_tagged(each) for each in value]}
    if type(value) is dict:
        return {"$dict": [[_tagged(key), _tagged(inner)] for key, inner in value.items()]}
    raise TypeError(type(value).__name__)


def _untagged(value: Any) -> Any:
    """Return the value that `_tagged` was given."""
    if isinstance(value, list):
        return [_untagged(each) for each in value]
    if not isinstance(value, dict):
        return value
    (kind, inner), *_ = value.items() or [("", [])]
    if kind == "$dict":
        return {_untagged(key): _untagged(each) for key, each in inner}
    return {"$tuple": tuple, "$set": set}[kind](map(_untagged, inner))


def _decode(encoded: Sequence[str], current: Any) -> Any:
    """Return the value of an attribute; raise `NameplateError` for one that `_encode` cannot have written."""
    kind, text = encoded
    try:
        match kind:
            case "int":
                return int(text)
            case "float":
                return float(text)
            case "bool":
                return text == "True"
            case "NoneType":
                return None
            case _ if kind == _CONTAINER:
                return _untagged(plain_data.decode(text.encode()))
            case _ if kind == _MEMBER:  # an enumeration that this process has is the only one that is looked into
                return type(current)[text] if isinstance(current, enum.Enum) else current
    except (KeyError, TypeError, ValueError, RecursionError, DamagedError) as error:
        raise NameplateError(f"the state of a callback has {text!r:.80}, which is not a {kind}: {error}") from None
    if kind == _OPERATION:
        found = getattr(keras.ops, text, None)
        if _encode(found) != [kind, text]:  # something else in the module
            raise NameplateError(f"the state of a callback names {text!r:.80}, which is not an operation of Keras")
        return found
    return text


# ---- hooks ---------------------------------------------------------------------------------------------------------


TRAIN_HOOKS = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")
TEST_HOOKS = ("on_test_batch_begin", "on_test_batch_end")


def use_hooks(
    callbacks: keras.callbacks.CallbackList | Sequence[keras.callbacks.Callback], hooks: Sequence[str]
) -> bool:
    """Say whether one of the callbacks has one of the hooks.

    A hook is a method of the callback's class or, in a LambdaCallback, an attribute of the instance. Hooks of Keras'
    own callbacks that do nothing as configured (a ModelCheckpoint that saves at epochs) do not count.
    """
    each = callbacks.callbacks if isinstance(callbacks, keras.callbacks.CallbackList) else callbacks
    return any(_has(callback, hook) for callback in each for hook in hooks)


def _has(callback: keras.callbacks.Callback, hook: str) -> bool:
    if hook in vars(callback):
        return True
    method = getattr(type(callback), hook)
    return method is not getattr(keras.callbacks.Callback, hook) and method not in _idle_hooks(callback)


def _idle_hooks(callback: keras.callbacks.Callback) -> list[Any]:
    """Return the batch hooks that do nothing in this callback as it is configured (callbacks/*.py)."""
    its = keras.callbacks
    match callback:
        case its.ModelCheckpoint() | its.BackupAndRestore() if callback.save_freq == "epoch":
            return [its.ModelCheckpoint.on_train_batch_end, its.BackupAndRestore.on_train_batch_end]
        case its.TensorBoard() if callback.update_freq == "epoch" and not profiles_batches(callback):
            if not callback.write_steps_per_second:
                return [
                    its.TensorBoard.on_train_batch_begin,
                    its.TensorBoard.on_train_batch_end,
                    its.TensorBoard.on_test_batch_begin,
                ]
    return []
