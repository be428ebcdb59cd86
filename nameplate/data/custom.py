"""Data from a callable that the configuration names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from nameplate.data.config import CustomDataConfig, TfdsConfig
from nameplate.data.dataset import (
    Allow,
    Column,
    Dataset,
    Output,
    TargetKind,
    describe,
    input_column,
    label_problems,
    outputs_of,
    target_column,
    weight_column,
)
from nameplate.data.errors import DataError, refuse
from nameplate.data.indexed import is_indexed
from nameplate.data.source import Memory, Source, Stream, bundle, named
from nameplate.data.sparse import dense
from nameplate.data.splits import Splits, split
from nameplate.data.targets import call
from nameplate.data.user_data import examples, is_table

PARTS = ("train", "validation", "test")
FORMS = (
    "arrays (x, y) or (x, y, sample_weight), an object with __len__ and __getitem__, a tf.data.Dataset of single "
    "examples, a data frame, what nameplate.data.examples gives, a dict of these by 'train', 'validation' and 'test', "
    "or a whole nameplate.data.Dataset"
)


def open_custom(config: CustomDataConfig, *, allow: Allow) -> Dataset:
    """Return the data that the callable `data._target_` returns when called with `data.arguments`.

    A bare x is named `x` and a bare y `y`; the keys of a dict are names. `data.inputs` and `data.targets` choose among
    the keys of examples that are dicts, and of tables.

    Raises:
        DataError: the callable does not take the arguments, or returns something that is not data, or no examples.
        TargetError: the callable raised an error; the message says which, and where.
    """
    factory = allow(config._target_)
    if isinstance(config, TfdsConfig):
        returned: Any = {part: _Pictures(_called(factory, config, given)) for part, given in config.parts().items()}
    else:
        returned = _called(factory, config, config.arguments)
    if isinstance(returned, Dataset):
        refuse(_empty(config._target_, {part: getattr(returned, part) for part in PARTS}))
        return returned
    parts = dict(returned) if isinstance(returned, Mapping) else {"train": returned}
    classes = _class_names(parts.get("train"), config)
    parts = {part: _examples(data, config) for part, data in parts.items()}
    refuse(_part_problems(config._target_, parts))
    refuse(_empty(config._target_, parts))
    columns = {part: _columns(data, config) for part, data in parts.items() if isinstance(data, tuple | list)}
    sources = {part: _source(data, columns.get(part)) for part, data in parts.items() if data is not None}
    spec = sources["train"].spec()
    outputs = _outputs_of_arrays(columns, config) or _outputs_of_spec(spec[1], config, classes)
    inputs = list(named(spec[0], _one(config.inputs) or "x"))
    return describe(_split(sources, config), inputs=inputs, outputs=outputs)


def _examples(data: Any, config: CustomDataConfig) -> Any:
    """Return arrays or a source of data that is a table or has `__getitem__`, or in which keys are chosen."""
    if data is None or not (config.inputs or is_indexed(data) or is_table(data)):
        return data
    chosen: dict[str, Any] = {}
    if config.inputs:
        groups = {"inputs": config.inputs, "targets": config.targets}
        chosen = {key: _one(names) or names for key, names in groups.items()}
    source = examples(data, **chosen, sample_weight=config.sample_weight, batched=False)
    return source.arrays() if isinstance(source, Memory) else source


def _one(names: list[str]) -> str | None:
    """Return the only name; None if there are several, or none."""
    return names[0] if len(names) == 1 else None


def _class_names(data: Any, config: CustomDataConfig) -> dict[str, tuple[str, ...]]:
    """Return the classes that a dataset declares: `features` in Hugging Face's way, `classes` in torchvision's."""
    features = getattr(data, "features", None)
    found = {name: getattr(features[name], "names", None) for name in config.targets if features and name in features}
    if not config.targets and isinstance(names := getattr(data, "classes", None), list | tuple):
        found["y"] = names
    return {name: tuple(map(str, names)) for name, names in found.items() if names}


class _Pictures:
    """The examples of a `tensorflow_datasets` source by index, their images as floats in 0..1."""

    def __init__(self, source: Any) -> None:
        self.source, self.features = source, source.dataset_info.features

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: _in_floats(value) for name, value in self.source[index].items()}


def _in_floats(value: Any) -> Any:
    picture = getattr(value, "dtype", None) == np.uint8 and np.ndim(value) == 3
    return value.astype(np.float32) / np.float32(255) if picture else value


def _called(factory: Any, config: CustomDataConfig, given: Mapping[str, Any]) -> Any:
    target = config._target_
    if not callable(factory):
        raise DataError(f"data._target_: {target!r} is a {type(factory).__name__}, not a callable")
    try:
        inspect.signature(factory).bind(**given)
    except TypeError as error:
        takes = f"{target}{inspect.signature(factory)}"
        raise DataError(f"data.arguments: {error}; the callable is {takes}") from None
    except ValueError:  # written in C, without a signature: the call itself will raise
        pass
    return call(factory, target, offered={}, given=dict(given))


def _part_problems(target: str, parts: Mapping[str, Any]) -> list[str]:
    other = [str(key) for key in parts if key not in PARTS]
    if other or "train" not in parts:
        keys = ", ".join(map(str, parts)) or "no key"
        return [f"{target} returned a dict with {keys}; the keys are {', '.join(PARTS)}, and 'train' is required"]
    present = {part: data for part, data in parts.items() if data is not None or part == "train"}
    return [
        f"{target} returned a {type(data).__name__} for {part!r}; it may return {FORMS}"
        for part, data in present.items()
        if not _is_data(data)
    ] + [
        f"{target} returned a tf.data.Dataset of {data.element_spec} for {part!r}; its elements must be (x, y) or "
        "(x, y, sample_weight), each a tensor or a dict of tensors by name"
        for part, data in present.items()
        if isinstance(data, tf.data.Dataset) and not _has_examples(data.element_spec)
    ]


def _empty(target: str, parts: Mapping[str, Any]) -> list[str]:
    return [f"{target} returned no examples for {part!r}" for part, data in parts.items() if _size(data) == 0]


def _size(data: Any) -> int | None:
    """Return the number of examples; None if it is unknown."""
    if isinstance(data, tuple | list):
        shapes = [np.shape(array) for group in data for array in named(group, "").values()]
        return min((shape[0] for shape in shapes if shape), default=0)
    size: int | None = Stream(data).size if isinstance(data, tf.data.Dataset) else getattr(data, "size", None)
    return size


def _is_data(data: Any) -> bool:
    arrays = isinstance(data, tuple | list) and len(data) in (2, 3)
    return arrays or isinstance(data, tf.data.Dataset | Source | Stream)


def _has_examples(element: Any) -> bool:
    """Say whether a dataset's elements are examples with targets, as a configured run needs."""
    if not isinstance(element, tuple) or len(element) not in (2, 3):
        return False
    specs = [spec for part in element for spec in named(part, "").values()]
    return all(isinstance(spec, tf.TensorSpec | tf.SparseTensorSpec | tf.RaggedTensorSpec) for spec in specs)


def _columns(example: Any, config: CustomDataConfig) -> tuple[list[Column], list[Column], list[Column]]:
    """Return the columns of inputs, targets and weights."""
    x, y, *weight = example
    return (
        [input_column(name, np.asarray(array)) for name, array in named(x, _one(config.inputs) or "x").items()],
        [target_column(name, np.asarray(array)) for name, array in named(y, _one(config.targets) or "y").items()],
        [weight_column("sample_weight", np.asarray(array)) for array in weight],
    )


def _outputs_of_arrays(
    columns: Mapping[str, tuple[list[Column], list[Column], list[Column]]], config: CustomDataConfig
) -> dict[str, Output]:
    """Return the outputs that target arrays ask for; nothing if the training data is not arrays."""
    if "train" not in columns:
        return {}
    refuse(
        f"{config._target_}: {part}: the arrays differ in their number of examples: {', '.join(lengths)}"
        for part, groups in columns.items()
        if len({len(column) for group in groups for column in group}) > 1
        for lengths in [[f"{column.name} {len(column)}" for group in groups for column in group]]
    )
    targets = {part: groups[1] for part, groups in columns.items()}
    outputs = outputs_of(targets, config.classes)
    refuse(problem for part, group in targets.items() for problem in label_problems(part, group, outputs))
    return outputs


def _source(data: Any, columns: tuple[list[Column], list[Column], list[Column]] | None) -> Source | Stream:
    if isinstance(data, tf.data.Dataset):
        return Stream(dense(data, "data"))
    if columns is None:
        return data
    inputs, targets, weights = columns
    x, y = (bundle({column.name: column.rows(slice(None)) for column in group}) for group in (inputs, targets))
    return Memory((x, y, *(column.rows(slice(None)) for column in weights)))


def _outputs_of_spec(
    targets: Any, config: CustomDataConfig, classes: Mapping[str, tuple[str, ...]]
) -> dict[str, Output]:
    """Return the outputs that the targets of a source or stream ask for; the configuration or the data has classes."""
    outputs, problems = {}, []
    for name, spec in named(targets, _one(config.targets) or "y").items():
        if spec.dtype == tf.string:
            problems.append(f"the target {name!r} is text; give the index of its class, from 0")
        elif not spec.dtype.is_integer:
            outputs[name] = Output(spec.shape[-1] if spec.shape.rank else 1, TargetKind.VALUES)
        elif name in config.classes:
            outputs[name] = Output(config.classes[name], TargetKind.CLASSES)
        elif name in classes:
            outputs[name] = Output(len(classes[name]), TargetKind.CLASSES, classes[name])
        else:
            problems.append(f"how many classes has the target {name!r}? e.g. 'data.classes={{{name}: 10}}'")
    refuse(problems)
    return outputs


def _split(sources: dict[str, Source | Stream], config: CustomDataConfig) -> Splits:
    train, validation, test = (sources.get(part) for part in PARTS)
    assert train is not None
    if not isinstance(train, Stream):
        return split(train, config, validation=validation, test=test)
    held_out = {"validation": validation, "test": test}
    refuse(
        f"data.{key}: no share can be held out of a tf.data.Dataset; return one for {key!r} too"
        for key, part in held_out.items()
        if part is None and getattr(config, key)
    )
    refuse(["data.folds: a tf.data.Dataset comes one after another; folds need random access"] if config.folds else [])
    return Splits(train, validation, test)
