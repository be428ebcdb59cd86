"""`python -m trainer.export RUN --to PATH`: a trained model in another format; the verbs are `export` and `save`.

Exit codes: 0 done, 2 refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nameplate.errors import Exit, NameplateError
from nameplate.training.console import Screen, import_tensorflow, interruptible
from trainer.cli import chosen_model

SUFFIXES = {
    ".keras": "the whole model, as Keras loads it",
    ".onnx": "the graph by named inputs and outputs, compared by onnxruntime",
    ".weights.h5": "weights, as Keras loads them",
    ".safetensors": "weights by qualified name",
    ".pt": "weights by name in PyTorch's layouts",
}
_EXAMPLES = """examples:
  python -m trainer.export runs/digits --to digits.keras
  python -m trainer.export runs/digits --to digits.onnx
  python -m trainer.export runs/digits --to served/digits      a SavedModel
"""


@interruptible
def main(argv: Sequence[str] | None = None) -> int:
    """Export as the command line says and return the exit code."""
    arguments = _parser().parse_args(argv)
    screen = Screen()
    try:
        target = _target(arguments.to)
        place = chosen_model.place_of(arguments.model, arguments.which, screen)
        import_tensorflow()
        from nameplate.io.export import export
        from nameplate.io.save import save
        from trainer.job.model import rebuild

        source = rebuild(place, trust=arguments.trust)
        if target.suffix in ("", ".onnx"):
            named = {name: own for name, own in source.data_record.classes.items() if name in _outputs(source.model)}
            export(source.model, target, classes=named or None)
        else:
            save(source.model, target)
        kind = next((text for suffix, text in SUFFIXES.items() if target.name.endswith(suffix)), "a SavedModel")
        screen.say(f"{source.origin} -> {target}: {kind}")
    except NameplateError as error:
        screen.fail(str(error))
        return Exit.REFUSED
    return Exit.DONE


def _outputs(model: Any) -> list[str]:
    from nameplate.engine.compile import output_names

    return list(output_names(model))


def _target(path: str) -> Path:
    """Return where to write; refuse an unknown suffix, and what exists already."""
    target = Path(path).expanduser()
    known = not target.suffix or target.name.endswith(tuple(SUFFIXES))
    if not known:
        listed = "\n".join(f"  {suffix:<12} {text}" for suffix, text in SUFFIXES.items())
        raise NameplateError(f"--to {path}: the suffix chooses the format:\n{listed}\n  none         a SavedModel")
    if target.exists() or target.is_symlink():
        raise NameplateError(f"--to {path}: exists already; name another, or remove it")
    if not target.absolute().parent.is_dir():
        raise NameplateError(f"--to {path}: the directory {target.absolute().parent} does not exist; create it first")
    return target


def _parser() -> argparse.ArgumentParser:
    description = "A trained model in another format, which the suffix of the file chooses."
    parser = chosen_model.parser_of("export", description=description, examples=_EXAMPLES, replicas=False)
    add = parser.add_argument
    add("--to", required=True, metavar="PATH", help=f"a file {', '.join(SUFFIXES)}; a directory for a SavedModel")
    return parser


if __name__ == "__main__":
    sys.exit(main())
