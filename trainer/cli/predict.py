"""`python -m trainer.predict RUN INPUT... --to FILE`: predictions as a table; the verb is `nameplate.tabulate`.

Inputs are prepared as the run's data was: images resized and scaled, the columns of a table in the same order.
Exit codes: 0 done, 2 refused.
"""

from __future__ import annotations

import argparse
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nameplate.data.specs import IMAGES, TABLES
from nameplate.errors import Exit, NameplateError, configured
from nameplate.training.console import Screen, import_tensorflow, interruptible
from trainer.cli import chosen_model

if TYPE_CHECKING:
    from trainer.job.model import Rebuilt

ARRAYS = (".npz", ".npy")
_EXAMPLES = """examples:
  python -m trainer.predict runs/flowers photo.jpg holiday/ --to predictions.csv
  python -m trainer.predict runs/table new.csv --to predictions.parquet
  python -m trainer.predict model.keras examples.npz --to predictions.csv
"""


@interruptible
def main(argv: Sequence[str] | None = None) -> int:
    """Predict as the command line says and return the exit code."""
    arguments = _parser().parse_args(argv)
    screen = Screen()
    try:
        with configured():
            _kind(arguments.inputs)
            import_tensorflow()
            _predict(arguments, screen)
    except NameplateError as error:
        screen.fail(str(error))
        return Exit.REFUSED
    return Exit.DONE


def _predict(arguments: argparse.Namespace, screen: Screen) -> None:
    from nameplate.engine.strategy import describe, make_strategy
    from nameplate.training.predictions import tabulate, writable
    from trainer.job.model import rebuild

    writable(arguments.to)
    place = chosen_model.place_of(arguments.model, arguments.which, screen)
    strategy = make_strategy(chosen_model.strategy_config(arguments.replicas))
    with strategy.scope():
        source = rebuild(place, trust=arguments.trust)
        data, names = _data(source, [Path(each).expanduser() for each in arguments.inputs])
        screen.say(f"{source.origin} on {len(names)} examples; {describe(strategy)}")
        found = tabulate(source.model, data, classes=_classes(source), names=names, batch_size=arguments.batch)
    found.write(arguments.to)
    screen.say(f"wrote {arguments.to}: {len(names)} rows, columns {', '.join(list(found.columns)[:6])}")


def _kind(inputs: Sequence[str]) -> str:
    """Return what the inputs are: images, a table or arrays; refuse those that do not exist, and mixtures."""
    paths = [Path(each).expanduser() for each in inputs]
    problems = [f"{path}: there is nothing" for path in paths if not path.exists()]
    kinds = {"a table": TABLES, "arrays": ARRAYS, "images": IMAGES, "a zip of images": (".zip",)}
    found = []
    for path in paths:
        kind = next((kind for kind, suffixes in kinds.items() if path.suffix.lower() in suffixes), None)
        found.append("images" if path.is_dir() else kind)
        if found[-1] is None and path.exists():
            known = ", ".join(suffix for suffixes in kinds.values() for suffix in suffixes)
            problems.append(f"{path}: {path.suffix or 'a file without a suffix'} is not read; {known}, or a folder is")
    if not problems and (len(set(found)) > 1 or (found[0] != "images" and len(paths) > 1)):
        problems = ["give images and folders of images, or one zip of images, one table, or one file of arrays"]
    if problems:
        raise NameplateError("\n".join(problems))
    return str(found[0])


def _data(source: Rebuilt, paths: Sequence[Path]) -> tuple[Any, list[str]]:
    """Return the examples of the inputs, and a name for each."""
    inputs = _inputs(source)
    match _kind([str(path) for path in paths]):
        case "images" | "a zip of images":
            return _images(source, inputs, paths)
        case "a table":
            return _table(source, inputs, paths[0])
        case _:
            return _arrays(inputs, paths[0])


def _inputs(source: Rebuilt) -> dict[str, tuple[int | None, ...]]:
    """Return the shape of every input of the model, by name."""
    tensors = getattr(source.model, "inputs", None)
    if not tensors:
        raise NameplateError(f"{source.origin}: the inputs of a {type(source.model).__name__} have no names and shapes")
    return {tensor.name: tuple(tensor.shape[1:]) for tensor in tensors}


def _images(source: Rebuilt, inputs: dict[str, Any], paths: Sequence[Path]) -> tuple[Any, list[str]]:
    from nameplate.data.image_folder import ImageFiles, images_in
    from nameplate.data.image_tree import Archive, is_image

    (shape, *more) = inputs.values()
    if more or len(shape) != 3 or None in shape or shape[2] not in (1, 3):
        shown = ", ".join(f"{name} {shape}" for name, shape in inputs.items())
        raise NameplateError(f"{source.origin} takes {shown}, not one image of a fixed size; give arrays or a table")
    if paths[0].suffix.lower() == ".zip":
        archive = Archive(paths[0])
        members = sorted(filter(is_image, archive.names))
        return ImageFiles(members, shape, archive), [f"{paths[0]}/{name}" for name in members]
    files = [file for path in paths for file in (images_in(path) if path.is_dir() else [path])]
    if not files:
        raise NameplateError(f"there are no images in {', '.join(map(str, paths))}")
    return ImageFiles(files, shape), [str(file) for file in files]


def _table(source: Rebuilt, inputs: dict[str, Any], path: Path) -> tuple[Any, list[str]]:
    """Return the columns that the run was trained on, as one vector or each as an input."""
    from nameplate.data.tables import table_inputs

    record = source.data_record
    wanted = record.columns or tuple(inputs)
    columns = table_inputs(
        path,
        wanted,
        categories=record.categories,
        delimiter=getattr(getattr(source.config, "data", None), "delimiter", ","),
        spelling=getattr(getattr(source.config, "data", None), "spelling", None),
    )
    rows = [str(number) for number in range(len(next(iter(columns.values()))))]
    if len(inputs) == 1 and (len(wanted) > 1 or record.columns):
        return np.concatenate(list(columns.values()), axis=1), rows
    return dict(zip(inputs, columns.values(), strict=True)), rows


def _arrays(inputs: dict[str, Any], path: Path) -> tuple[Any, list[str]]:
    held = _read_arrays(path, next(iter(inputs)))
    if missing := [name for name in inputs if name not in held]:
        raise NameplateError(f"{path} has no array {', '.join(missing)}; it has {', '.join(held)}")
    chosen = {name: held[name] for name in inputs}
    wrong = [f"{name} {array.dtype} {array.shape}" for name, array in chosen.items() if not array.ndim]
    if wrong or len({len(array) for array in chosen.values()}) > 1:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in chosen.items())
        raise NameplateError(f"{path}: the arrays {shapes} need the same number of examples in front")
    size = len(next(iter(chosen.values())))
    return next(iter(chosen.values())) if len(chosen) == 1 else chosen, [str(number) for number in range(size)]


def _read_arrays(path: Path, name: str) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file, or that of an .npy file under this name."""
    from nameplate.data.specs import array_headers

    try:
        if path.suffix.lower() == ".npy":
            return {name: np.load(path, mmap_mode="r", allow_pickle=False)}
        array_headers(path)
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise NameplateError(f"{path} cannot be read as arrays: {error}") from error


def _classes(source: Rebuilt) -> dict[str, Sequence[str]] | None:
    """Return the classes of every output that has some: their names, or their numbers."""
    from nameplate.engine.compile import output_names

    classes: dict[str, Sequence[str]] = dict(source.data_record.classes)
    if source.config is not None:
        objective = source.config.objective
        outputs = zip(output_names(source.model), source.model.outputs, strict=True)
        shapes = {name: tensor.shape for name, tensor in outputs}
        for name, shape in shapes.items():
            loss = str(objective.losses.get(name, objective.loss)).replace("_", "").casefold()
            if name not in classes and len(classes) < len(shapes) and "crossentropy" in loss and len(shape) == 2:
                classes[name] = [str(number) for number in range(max(shape[-1], 2))]
    return classes or None


def _parser() -> argparse.ArgumentParser:
    description = "What a trained model predicts, as a table with the names of its classes."
    parser = chosen_model.parser_of("predict", description=description, examples=_EXAMPLES)
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="images and folders of them; one table; one .npz or .npy")
    add("--to", required=True, metavar="FILE", help="the table to write: .csv or .parquet")
    add("--batch", type=int, metavar="N", help="examples a step over all replicas together; default: 32")
    return parser


if __name__ == "__main__":
    sys.exit(main())
