"""Tables of numbers, categories and classes, from CSV, Parquet, Arrow or Feather files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nameplate.data.config import CsvConfig, TableConfig
from nameplate.data.dataset import Dataset, Output, TargetKind, describe
from nameplate.data.errors import refuse
from nameplate.data.sanity import respelling_problems, typos
from nameplate.data.source import Memory, bundle
from nameplate.data.splits import split
from nameplate.data.table_files import Columns, TableFile, table_file
from nameplate.naming.names import did_you_mean, fault, sanitized


def open_table(config: TableConfig) -> Dataset:
    """Return the columns of a table: one input `features` float32 (columns,), or each column an input (1,).

    A column of classes becomes the index of each value among the distinct values, which are sorted as numbers if all
    are whole, else as text. A column of categories becomes a number for each of its distinct values, 1 for the row's
    own and 0 for the others, after the columns of numbers. An input or output has its column's name, with `_` for what
    a layer's name cannot have. Of a Parquet, Arrow or Feather file only these columns are read.

    Raises:
        DataError: missing columns, missing values, dates, and text among numbers, with their lines or rows.
    """
    files = _files(config)
    refuse(fault for file in files.values() for fault in file.faults)
    inputs = list(config.inputs) or _unused_columns(files["train"], config)
    numbers = [*inputs, *config.values, *([config.sample_weight] if config.sample_weight else [])]
    texts = [*config.classes, *config.categories]
    grouped = {"train": [config.group] if config.group else []}
    read = {key: file.read(numbers=numbers, texts=[*texts, *grouped.get(key, [])]) for key, file in files.items()}
    refuse(problem for _, problems in read.values() for problem in problems)
    tables = {key: _respelt(columns, config.spelling) for key, (columns, _) in read.items()}
    every = {value for columns, _ in read.values() for name in texts for value in columns.texts[name].values}
    refuse(respelling_problems(config.spelling, sorted(every)))
    names, categories = (
        {column: distinct(tables["train"].texts[column].values) for column in columns}
        for columns in (config.classes, config.categories)
    )
    refuse(problem for table in tables.values() for problem in _class_problems(table, names))
    refuse(problem for table in tables.values() for problem in _unknown_values(table, categories))
    sources = {key: _source(table, config, inputs, categories, names) for key, table in tables.items()}
    held_out = {"validation": sources.get("validation"), "test": sources.get("test")}
    groups = read["train"][0].texts[config.group].codes if config.group else None
    parts = split(sources["train"], config, **held_out, groups=groups)
    outputs = {
        layer_name(column): Output(len(known), TargetKind.CLASSES, tuple(known)) for column, known in names.items()
    }
    outputs |= {layer_name(column): Output(1, TargetKind.VALUES) for column in config.values}
    columns = (*inputs, *categories)
    shown = [layer_name(column) for column in columns] if config.named else ["features"]
    values = {column: tuple(known) for column, known in categories.items()}
    notes = _typos(tables["train"], config)
    return replace(describe(parts, inputs=shown, outputs=outputs), columns=columns, categories=values, notes=notes)


def table_inputs(
    path: Path,
    columns: Sequence[str],
    *,
    categories: Mapping[str, Sequence[str]],
    delimiter: str = ",",
    spelling: Mapping[str, str] | None = None,
) -> dict[str, np.ndarray]:
    """Return columns of a CSV, Parquet, Arrow or Feather file as inputs, float32 (rows, width) each, in this order.

    Columns with `categories` have a number for each of these values, spelt as `spelling` has it; the others one.

    Raises:
        DataError: columns that do not exist, missing values, text among numbers, unknown values of categories.
    """
    file = table_file(path, delimiter)
    refuse(file.faults)
    numbers = [column for column in columns if column not in categories]
    table, problems = file.read(numbers=numbers, texts=[column for column in columns if column in categories])
    refuse(problems)
    table = _respelt(table, spelling or {})
    refuse(_unknown_values(table, categories))
    return _input_columns(table, columns, categories)


def _respelt(table: Columns, spelling: Mapping[str, str]) -> Columns:
    return replace(table, texts={name: column.respelt(spelling) for name, column in table.texts.items()})


def _typos(table: Columns, config: TableConfig) -> tuple[str, ...]:
    """Return a line for each rare class or category that looks like a typing error of a frequent one."""
    kinds = [("class", name) for name in config.classes] + [("category", name) for name in config.categories]
    return tuple(
        line
        for kind, name in kinds
        for line in typos(table.texts[name].counts(), f"the {kind} of {name!r}", confirmed=config.spelling)
    )


def _files(config: TableConfig) -> dict[str, TableFile]:
    paths = {"train": config.path, "validation": config.validation_path, "test": config.test_path}
    always_csv = isinstance(config, CsvConfig)
    return {
        key: table_file(Path(path).expanduser(), config.delimiter, always_csv=always_csv)
        for key, path in paths.items()
        if path
    }


def _input_columns(
    table: Columns, columns: Sequence[str], categories: Mapping[str, Sequence[str]]
) -> dict[str, np.ndarray]:
    """Return numbers (rows, 1), and categories (rows, values) with one 1 in each row."""
    return {
        column: np.eye(len(categories[column]), dtype=np.float32)[table.texts[column].indices(categories[column])]
        if column in categories
        else table.numbers[column][:, None]
        for column in columns
    }


def _unused_columns(file: TableFile, config: TableConfig) -> list[str]:
    used = {*config.classes, *config.values, *config.categories, config.sample_weight, config.group}
    return [column for column in file.names if column not in used]


def _source(
    table: Columns,
    config: TableConfig,
    inputs: list[str],
    categories: dict[str, list[str]],
    names: dict[str, list[str]],
) -> Memory:
    found = _input_columns(table, [*inputs, *categories], categories)
    columns = {layer_name(column): array for column, array in found.items()}
    x = columns if config.named else {"features": np.concatenate(list(columns.values()), axis=1)}
    y = {layer_name(column): table.texts[column].indices(names[column]) for column in config.classes}
    y |= {layer_name(column): table.numbers[column] for column in config.values}
    weights = [table.numbers[config.sample_weight]] if config.sample_weight else []
    return Memory((bundle(x), bundle(y), *weights))


def distinct(values: Collection[str]) -> list[str]:
    """Return the values of classes or of a category, sorted as numbers if all are whole, else as text."""
    whole = all(value.lstrip("+-").isdecimal() for value in values)
    return sorted(values, key=int if whole else str)


def _class_problems(table: Columns, names: dict[str, list[str]]) -> Iterator[str]:
    for column, known in names.items():
        where = f"{table.path}: the column {column!r}"
        if len(known) < 2:
            yield f"{where} has only the value {known[0]!r}; there is nothing to predict"
    yield from _unknown_values(table, names)


def _unknown_values(table: Columns, known: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for column, values in known.items():
        if other := sorted(set(table.texts[column].values) - set(values)):
            near = did_you_mean(other[0], values)
            yield (
                f"{table.path}: the column {column!r} has values that the training data does not: {', '.join(other)}."
                f"{near}{' data.spelling merges values' if near else ''}"
            )


def layer_name(column: str) -> str:
    """Return the name of the input or output of a column: its own, with `_` for what no layer's name may have."""
    return column if fault(column) is None else sanitized(column)
