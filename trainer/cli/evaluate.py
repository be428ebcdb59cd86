"""`python -m trainer.evaluate RUN`: metrics, confusion, each class, the worst examples; the verb is `nameplate.assess`.

Exit codes: 0 done, 2 refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nameplate.errors import Exit, NameplateError, as_path, configured
from nameplate.training.console import Screen, import_tensorflow, interruptible
from trainer.cli import chosen_model

if TYPE_CHECKING:
    from nameplate.data.dataset import Dataset
    from trainer.job.model import Rebuilt

PARTS = ("validation", "test", "train")
_EXAMPLES = """examples:
  python -m trainer.evaluate runs/digits
  python -m trainer.evaluate runs/digits --part test --json digits.json --page digits.html
  python -m trainer.evaluate runs/flowers data.root=/data/other
  python -m trainer.evaluate model.keras data=table data.path=table.parquet 'data.classes=[species]'
"""


@interruptible
def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate as the command line says and return the exit code."""
    arguments = _parser().parse_args(argv)
    screen = Screen()
    try:
        with configured():
            _refuse_unwritable(arguments)
            import_tensorflow()
            _evaluate(arguments, screen)
    except NameplateError as error:
        screen.fail(str(error))
        return Exit.REFUSED
    return Exit.DONE


def _evaluate(arguments: argparse.Namespace, screen: Screen) -> None:
    from nameplate.engine.strategy import describe, make_strategy
    from nameplate.training.assessment import assess
    from trainer.job.model import rebuild

    place = chosen_model.place_of(arguments.model, arguments.which, screen)
    strategy = make_strategy(chosen_model.strategy_config(arguments.replicas))
    with strategy.scope():
        source = rebuild(place, trust=arguments.trust)
        dataset = _data(source, arguments.data, arguments.trust, screen)
        _refuse_unlike(source, dataset)
        part, examples = _part(dataset, arguments.part)
        _compile(source, dataset, arguments.trust)
        screen.say(f"{source.origin} on its {part} data; {describe(strategy)}")
        found = assess(
            source.model,
            examples,
            classes=dict(dataset.classes) or dict(source.data_record.classes) or None,
            worst=arguments.worst,
            batch_size=arguments.batch,
            about={"model": source.origin, "data": part},
        )
    for title, columns, rows in found.tables():
        screen.table(title, columns, rows)
    for path, text in ((arguments.json, found.as_json), (arguments.page, found.page)):
        if path:
            as_path(path).write_text(text(), encoding="utf-8")
            screen.say(f"wrote {path}")


def _data(source: Rebuilt, overrides: Sequence[str], trust: Sequence[str], screen: Screen) -> Dataset:
    """Return the data of the run, with what the command line changes in it; or all data that is described there.

    Examples that are damaged are left out if the configuration says so.
    """
    from nameplate.data.config import DataConfig, TableConfig
    from nameplate.data.registry import open_dataset
    from nameplate.data.targets import resolver
    from nameplate.training.damaged_data import usable
    from trainer.config import run_config

    if not overrides and source.data is None:
        raise NameplateError(f"{source.origin} has no data of its own; say which, e.g. data=table data.path=table.csv")
    if not overrides:
        assert source.data is not None
        own = source.config.data if source.config is not None else DataConfig()
        return usable(own, source.data(), screen, home=None, writes=False)
    changed = run_config([*_own_data(source, overrides), *overrides, f"trust=[{','.join(trust)}]"])
    data, record = changed.data, source.data_record
    if (
        isinstance(data, TableConfig) and record.columns and not data.inputs
    ):  # in the order of the run's, not the file's
        data = replace(data, inputs=[column for column in record.columns if column not in record.categories])
    stored = not _describe_all(overrides)
    dataset = open_dataset(data, seed=changed.seed, allow=resolver(tuple(trust), stored=stored))
    return usable(data, dataset, screen, home=None, writes=False)


def _describe_all(overrides: Sequence[str]) -> bool:
    """Say whether overrides describe other data than that of a stored configuration, and not only change it."""
    return any(each.startswith("data=") for each in overrides)


def _own_data(source: Rebuilt, overrides: Sequence[str]) -> list[str]:
    """Return overrides for the data of a run; if the command line describes other data, for all of that."""
    from trainer.config import overrides_of

    if _describe_all(overrides):
        return [] if any(each.startswith("data.validation=") for each in overrides) else ["data.validation=0"]
    if source.config is None:
        raise NameplateError(f"{source.origin} has no data of its own; describe all of it, data=...")
    own = overrides_of(source.config)
    if own is None or "${" in "".join(own):  # what a stored configuration refers to is not looked up in this process
        raise NameplateError(f"the data of {source.origin} refers to its own process; describe all of it, data=...")
    return [each for each in own if each.startswith("data")]


def _refuse_unlike(source: Rebuilt, dataset: Dataset) -> None:
    """Refuse data whose classes, columns or categories are others, or in another order, than those of the training."""
    record = source.data_record
    pairs = [(f"classes of {name!r}", known, dataset.classes.get(name)) for name, known in record.classes.items()]
    pairs += [("columns", record.columns, dataset.columns)] if record.columns else []
    pairs += [(f"values of {name!r}", known, dataset.categories.get(name)) for name, known in record.categories.items()]
    if problems := [
        f"the {what} are {', '.join(found or ()) or 'unknown'}; {source.origin} was trained on {', '.join(known)}"
        for what, known, found in pairs
        if found != known
    ]:
        raise NameplateError("\n".join(problems))


def _part(dataset: Dataset, wanted: str | None) -> tuple[str, Any]:
    """Return the name of a part of the data and its examples: the one that is asked for, else the first that exists."""
    parts = {part: getattr(dataset, part) for part in PARTS if getattr(dataset, part) is not None}
    if wanted is not None and wanted not in parts:
        raise NameplateError(f"--part {wanted}: the data has no such part; it has {', '.join(parts)}")
    part = wanted or next(iter(parts))
    return part, parts[part]


def _compile(source: Rebuilt, dataset: Dataset, trust: Sequence[str]) -> None:
    """Compile the model of a configured run with its losses and metrics; another is measured by its predictions."""
    from nameplate.data.adapters import example_of
    from nameplate.engine.compile import compile_model

    if (config := source.config) is not None:
        compile_model(
            source.model,
            optimizer=config.optimizer,
            schedule=config.schedule,
            objective=config.objective,
            precision=config.fit.precision,
            steps=1,
            example=example_of(dataset.train),
            trust=trust,
        )


def _refuse_unwritable(arguments: argparse.Namespace) -> None:
    problems = [
        f"--{key} {path}: {'a directory' if Path(path).is_dir() else 'its directory does not exist'}; name a file"
        for key in ("json", "page")
        if (path := getattr(arguments, key)) and (Path(path).is_dir() or not Path(path).absolute().parent.is_dir())
    ]
    problems += [f"{word}: not a setting of the data; e.g. data.root=/data/other" for word in arguments.data
                 if not word.startswith(("data=", "data."))]  # fmt: skip
    if problems:
        raise NameplateError("\n".join(problems))


def _parser() -> argparse.ArgumentParser:
    description = "How good a trained model is: metrics, confusion, each class, the worst examples."
    parser = chosen_model.parser_of("evaluate", description=description, examples=_EXAMPLES)
    add = parser.add_argument
    add("data", nargs="*", metavar="data.KEY=VALUE", help="other data than the run's, as `python -m trainer` takes it")
    add("--part", choices=PARTS, help="of the data; default: validation if there is any, else test, else train")
    add("--worst", type=int, default=10, metavar="N", help="examples to list of each output; default: 10")
    add("--batch", type=int, metavar="N", help="examples a step over all replicas together; default: 32")
    add("--json", metavar="FILE", help="write everything as JSON")
    add("--page", metavar="FILE.html", help="write everything as a page")
    return parser


if __name__ == "__main__":
    sys.exit(main())
