"""`python -m trainer.dream MODEL OBJECTIVE`: pictures of what named layers see; the verb is `nameplate.dream`.

TensorFlow is imported when it dreams. Exit codes: 0 done, 2 refused.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from nameplate.errors import Exit, NameplateError
from nameplate.interpret.settings import Parameters, Settings
from nameplate.training.console import Screen, import_tensorflow, interruptible

_EXAMPLES = """examples:
  python -m trainer.dream runs/digits 'class_logit(3)'
  python -m trainer.dream runs/digits --layers 'stage*_relu2' --size 64
  python -m trainer.dream model.keras '0.7 * layer("mixed3") + 0.3 * channel("mixed5", 12)' --image sky
  python -m trainer.dream model.keras --channels backbone/conv1 --numbers 0-15
  python -m trainer.dream runs/digits --look 'stage1*' --image example:0
  python -m trainer.dream runs/digits --grad-cam 3 --at stage2_block1_relu2 --image example:0
  python -m trainer.dream dream.png        what a picture was made from
"""


@interruptible
def main(argv: Sequence[str] | None = None) -> int:
    """Dream as the command line says and return the exit code."""
    arguments = vars(_parser().parse_args(argv))
    screen = Screen()
    try:
        if arguments["model"].endswith(".png"):
            _tell_recipe(arguments["model"], screen)
            return Exit.DONE
        import_tensorflow()
        pictures = import_module("trainer.cli.pictures")
        settings = {name: arguments.pop(name) for name in _SETTINGS if arguments[name] is not None}
        request = {name: value for name, value in arguments.items() if name not in _SETTINGS}
        pictures.make(pictures.PictureRequest(**request, settings=settings), screen)
    except NameplateError as error:
        screen.fail(str(error))
        return Exit.REFUSED
    return Exit.DONE


_SETTINGS = (
    "parameters",
    "values",
    "steps",
    "rate",
    "octaves",
    "octave_scale",
    "jitter",
    "tile",
    "tv",
    "detail",
    "seed",
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.dream",
        description="Pictures of what named layers see.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="a .keras file, a run, or a checkpoint; of a picture its recipe is printed")
    what = parser.add_argument_group("what to show (one of these)").add_mutually_exclusive_group()
    what.add_argument("objective", nargs="?", help="a layer's name, or terms that are added, subtracted and scaled")
    what.add_argument("--layers", nargs="+", metavar="NAME", help="a sheet of many layers; * and ? for many names")
    what.add_argument("--channels", metavar="LAYER", help="a sheet of a layer's channels")
    what.add_argument("--classes", action="store_true", help="a sheet of classes")
    what.add_argument("--look", nargs="+", metavar="NAME", help="what layers give for --image, as a grid")
    what.add_argument("--grad-cam", type=int, metavar="CLASS", help="where a class is seen in --image")
    parser.add_argument("--at", metavar="LAYER", help="the layer of --grad-cam")
    _add_images(parser)
    _add_settings(parser.add_argument_group("settings of the ascent"))
    return parser


def _add_images(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("images").add_argument
    add("--image", help="where to begin: a file; sky, hills, rings, checks; china, flower with scikit-learn; "
        "example:N of a run's held-out data. Not given: noise")  # fmt: skip
    add("--size", type=_size, metavar="N or HxW", help="pixels; what the model was built for, or 224")
    add("--numbers", type=_numbers, metavar="0-15", help="channels or classes of a sheet, e.g. 0-7,12")
    add("--count", type=int, help="images from noise")
    add("--over", metavar="INPUT", help="the input that is dreamt over; the others keep what example:N has")
    add("--out", default="dream.png", metavar="FILE.png", help="dream.png")
    add("--tensorboard", metavar="DIR", help="write the picture there too")
    add("--replicas", type=int, help="over how many devices a batch is shared; all GPUs")
    add("--trust", nargs="+", default=[], metavar="PACKAGE", help="packages whose code a run may name")


def _add_settings(group: Any) -> None:
    usual, add = Settings(), group.add_argument
    add("--parameters", choices=[each.value for each in Parameters], help="pixels; of images from noise fourier")
    add(
        "--values", nargs=2, type=float, metavar=("LOW", "HIGH"), help="the range of pixels that the model expects; 0 1"
    )
    add("--steps", type=int, help="of the ascent, at each size")
    add("--rate", type=float, help="how far a step goes")
    add("--octaves", type=int, help="sizes, the last is the image's own")
    add("--octave-scale", type=float, help=f"between a size and the next; {usual.octave_scale}")
    add("--jitter", type=int, help="pixels the image is moved at most before each step")
    add("--tile", type=int, help="pixels a side of what is computed at a time, for large images")
    add("--tv", type=float, help="weight of total variation; 0.1 calms, 1 stills")
    add("--detail", type=float, help="share of the start image's detail that returns at each size; 1")
    add("--seed", type=int, help="of noise and jitter; 0")


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    found = (int(height), int(width or height))
    if min(found) < 1:
        raise ValueError
    return found


def _numbers(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    if not found:
        raise ValueError
    return found


def _tell_recipe(path: str, screen: Screen) -> None:
    files = import_module("nameplate.interpret.image_files")
    for key, value in files.read_recipe(path).items():
        screen.say(f"{key:<10} {value}")


if __name__ == "__main__":
    # The same command gives the same picture on a GPU too; read when TensorFlow is imported.
    os.environ.setdefault("TF_DETERMINISTIC_OPS", "1")
    sys.exit(main())
