"""Data from a callable of the user's own."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from nameplate.data.config import CustomDataConfig
from nameplate.data.dataset import (
    Allow,
    Column,
    Dataset,
    Kind,
    Output,
    describe,
    input_column,
    label_problems,
    outputs_of,
    target_column,
    weight_column,
)
from nameplate.data.errors import DataError, refuse
from nameplate.data.source import Memory, Source, Stream, bundle, named
from nameplate.data.sparse import dense
from nameplate.data.splits import Splits, split
from nameplate.data.targets import call

PARTS = ("train", "validation", "test")
FORMS = (
    "arrays (x, y) or (x, y, sample_weight), a tf.data.Dataset of single examples, a source (size, spec,"
    " load, arrays), a dict of these by 'train', 'validation' and 'test', or a whole nameplate.data.Dataset"
)


def open_custom(config: CustomDataConfig, *, allow: Allow) -> Dataset:
    """Return what the callable `data._target_` returns, called with `data.arguments`.

    A bare x is called `x` and a bare y `y`; of a dict, the keys are the names.

    Raises:
        DataError: the callable does not take the arguments, or returns nothing that is data, or no examples.
        TargetError: what the callable raised itself, and where.
    """
    made = _called(allow(config._target_), config)
    if isinstance(made, Dataset):
        refuse(_empty(config._target_, {part: getattr(made, part) for part in PARTS}))
        return made
    given = dict(made) if isinstance(made, Mapping) else {"train": made}
    refuse(_part_problems(config._target_, given))
    refuse(_empty(config._target_, given))
    columns = {part: _columns(each) for part, each in given.items() if isinstance(each, tuple | list)}
    declared = _declared(columns, config)
    sources = {part: _source(each, columns.get(part)) for part, each in given.items() if each is not None}
    spec = sources["train"].spec()
    outputs = declared or _from_spec(spec[1], config)
    return describe(_split(sources, config), inputs=list(named(spec[0], "x")), outputs=outputs)


def _called(factory: Any, config: CustomDataConfig) -> Any:
    target = config._target_
    if not callable(factory):
        raise DataError(f"data._target_: {target!r} is a {type(factory).__name__}, and has to be callable")
    try:
        inspect.signature(factory).bind(**config.arguments)
    except TypeError as error:
        takes = f"{target}{inspect.signature(factory)}"
        raise DataError(f"data.arguments: {error}; the callable is {takes}") from None
    except ValueError:  # written in C, without a signature: the call itself will tell
        pass
    return call(factory, target, offered={}, given=config.arguments)


def _part_problems(target: str, given: Mapping[str, Any]) -> list[str]:
    other = [str(key) for key in given if key not in PARTS]
    if other or "train" not in given:
        keys = ", ".join(map(str, given)) or "no key"
        return [f"{target} returned a dict with {keys}; the keys are {', '.join(PARTS)}, and 'train' is needed"]
    there = {part: each for part, each in given.items() if each is not None or part == "train"}
    return [
        f"{target} returned a {type(each).__name__} for {part!r}; it may return {FORMS}"
        for part, each in there.items()
        if not _is_data(each)
    ] + [
        f"{target} returned a tf.data.Dataset of {each.element_spec} for {part!r}; its elements have to be (x, y) or "
        "(x, y, sample_weight), each a tensor or a dict of tensors by name"
        for part, each in there.items()
        if isinstance(each, tf.data.Dataset) and not _has_examples(each.element_spec)
    ]


def _empty(target: str, given: Mapping[str, Any]) -> list[str]:
    return [f"{target} returned no examples for {part!r}" for part, each in given.items() if _size(each) == 0]


def _size(each: Any) -> int | None:
    """Return the number of examples; None where it is not known."""
    if isinstance(each, tuple | list):
        lengths = [np.shape(array) for group in each for array in named(group, "").values()]
        return min((shape[0] for shape in lengths if shape), default=0)
    size: int | None = Stream(each).size if isinstance(each, tf.data.Dataset) else getattr(each, "size", None)
    return size


def _is_data(each: Any) -> bool:
    arrays = isinstance(each, tuple | list) and len(each) in (2, 3)
    return arrays or isinstance(each, tf.data.Dataset | Source | Stream)


def _has_examples(element: Any) -> bool:
    """Say whether a dataset's elements are examples with targets, by the names that a configured run needs."""
    if not isinstance(element, tuple) or len(element) not in (2, 3):
        return False
    specs = [spec for part in element for spec in named(part, "").values()]
    return all(isinstance(spec, tf.TensorSpec | tf.SparseTensorSpec | tf.RaggedTensorSpec) for spec in specs)


def _columns(example: Any) -> tuple[list[Column], list[Column], list[Column]]:
    """Return the inputs, the targets and the weights of arrays."""
    x, y, *weight = example
    return (
        [input_column(name, np.asarray(array)) for name, array in named(x, "x").items()],
        [target_column(name, np.asarray(array)) for name, array in named(y, "y").items()],
        [weight_column("sample_weight", np.asarray(array)) for array in weight],
    )


def _declared(
    columns: Mapping[str, tuple[list[Column], list[Column], list[Column]]], config: CustomDataConfig
) -> dict[str, Output]:
    """Return what arrays ask of the outputs; nothing where training data is no arrays."""
    if "train" not in columns:
        return {}
    refuse(
        f"{config._target_}: {part}: the arrays differ in their number of examples: {', '.join(lengths)}"
        for part, groups in columns.items()
        if len({len(each.array) for group in groups for each in group}) > 1
        for lengths in [[f"{each.name} {len(each.array)}" for group in groups for each in group]]
    )
    targets = {part: groups[1] for part, groups in columns.items()}
    outputs = outputs_of(targets, config.classes)
    refuse(problem for part, each in targets.items() for problem in label_problems(part, each, outputs))
    return outputs


def _source(made: Any, columns: tuple[list[Column], list[Column], list[Column]] | None) -> Source | Stream:
    if isinstance(made, tf.data.Dataset):
        return Stream(dense(made, "data"))
    if columns is None:
        return made
    inputs, targets, weights = columns
    x, y = (bundle({each.name: each.rows(slice(None)) for each in group}) for group in (inputs, targets))
    return Memory((x, y, *(each.rows(slice(None)) for each in weights)))


def _from_spec(targets: Any, config: CustomDataConfig) -> dict[str, Output]:
    """Return what the targets of a source or stream ask of outputs; the number of classes must be told."""
    outputs, problems = {}, []
    for name, spec in named(targets, "y").items():
        if not spec.dtype.is_integer:
            outputs[name] = Output(spec.shape[-1] if spec.shape.rank else 1, Kind.VALUES)
        elif name in config.classes:
            outputs[name] = Output(config.classes[name], Kind.CLASSES)
        else:
            problems.append(f"how many classes has the target {name!r}? e.g. 'data.classes={{{name}: 10}}'")
    refuse(problems)
    return outputs


def _split(sources: dict[str, Source | Stream], config: CustomDataConfig) -> Splits:
    train, validation, test = (sources.get(part) for part in PARTS)
    assert train is not None
    if not isinstance(train, Stream):
        return split(train, config, validation=validation, test=test)
    held = {"validation": validation, "test": test}
    refuse(
        f"data.{key}: no share can be held out of a tf.data.Dataset; return one for {key!r} too"
        for key, part in held.items()
        if part is None and getattr(config, key)
    )
    return Splits(train, validation, test)
