"""`python -m trainer.evaluate RUN`: metrics, confusion, each class, the worst examples; the verb is `nameplate.assess`.

Exit codes: 0 done, 2 refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nameplate.errors import Exit, NameplateError, as_path, configured
from nameplate.training.console import Screen, import_tensorflow, interruptible
from trainer.cli import chosen_model

if TYPE_CHECKING:
    from nameplate.data.dataset import Dataset
    from trainer.model import Rebuilt

PARTS = ("validation", "test", "train")
_EXAMPLES = """examples:
  python -m trainer.evaluate runs/digits
  python -m trainer.evaluate runs/digits --part test --json digits.json --page digits.html
  python -m trainer.evaluate runs/flowers data.root=/data/other
  python -m trainer.evaluate model.keras data=csv data.path=table.csv 'data.classes=[species]'
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
    from trainer.model import rebuild

    place = chosen_model.place_of(arguments.model, arguments.which, screen)
    strategy = make_strategy(chosen_model.strategy_config(arguments.replicas))
    with strategy.scope():
        source = rebuild(place, trust=arguments.trust)
        dataset = _data(source, arguments.data, arguments.trust)
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


def _data(source: Rebuilt, overrides: Sequence[str], trust: Sequence[str]) -> Dataset:
    """Return the data of the run, with what the command line changes in it; or all data that is described there."""
    from nameplate.data.registry import open_dataset
    from nameplate.data.targets import resolver
    from trainer.config import overrides_of, run_config

    if not overrides and source.data is None:
        raise NameplateError(f"{source.origin} has no data of its own; say which, e.g. data=csv data.path=table.csv")
    if not overrides:
        assert source.data is not None
        return source.data()
    config = [] if source.config is None else overrides_of(source.config) or []
    own = [each for each in config if each.startswith("data")]
    kept = [] if any(each.startswith("data=") for each in overrides) else own
    changed = run_config([*kept, *overrides, f"trust=[{','.join(trust)}]"])
    return open_dataset(changed.data, seed=changed.seed, allow=resolver(tuple(trust)))


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
    parser = argparse.ArgumentParser(
        prog="python -m trainer.evaluate",
        description="How good a trained model is: metrics, confusion, each class, the worst examples.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    chosen_model.add_arguments(parser)
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
