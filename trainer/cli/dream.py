"""`python -m trainer.dream MODEL OBJECTIVE`: pictures of what named layers see; the verb is `nameplate.dream`.

TensorFlow is imported only to dream. Exit codes: 0 done, 2 refused.
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
  python -m trainer.dream runs/pets --class cat dog
  python -m trainer.dream runs/digits --layers 'stage*_relu2' --size 64
  python -m trainer.dream model.keras '0.7 * layer("mixed3") + 0.3 * channel("mixed5", 12)' --image sky
  python -m trainer.dream model.keras --channels backbone/conv1 --numbers 0-15
  python -m trainer.dream runs/digits --look 'stage1*' --image example:0
  python -m trainer.dream runs/digits --grad-cam 3 --at stage2_block1_relu2 --image example:0
  python -m trainer.dream dream.png        prints the recipe of a picture
"""


@interruptible
def main(argv: Sequence[str] | None = None) -> int:
    """Dream as the command line says and return the exit code."""
    arguments = vars(_parser().parse_args(argv))
    screen = Screen()
    try:
        if arguments["model"].endswith(".png"):
            _print_recipe(arguments["model"], screen)
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
    parser.add_argument("model", help="a .keras file, a run or a checkpoint; or a picture, to print its recipe")
    what = parser.add_argument_group("what to show (one of these)").add_mutually_exclusive_group()
    what.add_argument("objective", nargs="?", help="a layer's name, or terms, added, subtracted and scaled")
    what.add_argument("--layers", nargs="+", metavar="NAME", help="a sheet of many layers; * and ? match many names")
    what.add_argument("--channels", metavar="LAYER", help="a sheet of a layer's channels")
    what.add_argument("--classes", action="store_true", help="a sheet of classes")
    what.add_argument("--look", nargs="+", metavar="NAME", help="the activations of layers for --image, as a grid")
    what.add_argument("--class", nargs="+", dest="named", metavar="CLASS", help="classes by name or number, a sheet")
    what.add_argument("--grad-cam", metavar="CLASS", help="where a class, by name or number, is seen in --image")
    parser.add_argument("--at", metavar="LAYER", help="the layer of --grad-cam")
    _add_images(parser)
    _add_settings(parser.add_argument_group("settings of the ascent"))
    return parser


def _add_images(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("images").add_argument
    add("--image", help="start image: a file; sky, hills, rings, checks; china, flower with scikit-learn; "
        "example:N of a run's held-out data. Default: noise")  # fmt: skip
    add("--size", type=_size, metavar="N or HxW", help="pixels; default: what the model was built for, or 224")
    add("--numbers", type=_numbers, metavar="0-15", help="channels or classes of a sheet, e.g. 0-7,12")
    add("--count", type=int, help="number of images from noise")
    add("--over", metavar="INPUT", help="the input to dream over; the others keep the values of example:N")
    add("--out", default="dream.png", metavar="FILE.png", help="default: dream.png")
    add("--tensorboard", metavar="DIR", help="also write the picture there")
    add("--replicas", type=int, help="devices that share a batch; default: all GPUs")
    add("--trust", nargs="+", default=[], metavar="PACKAGE", help="packages whose code a run may use")


def _add_settings(group: Any) -> None:
    defaults, add = Settings(), group.add_argument
    add("--parameters", choices=list(map(str, Parameters)), help="default: fourier from noise, else pixels")
    add(
        "--values",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="range of the model's pixels; default: 0 1",
    )
    add("--steps", type=int, help="steps at each size")
    add("--rate", type=float, help="length of a step")
    add("--octaves", type=int, help="number of sizes; the last is the image's own")
    add("--octave-scale", type=float, help=f"ratio of a size to the one before; default: {defaults.octave_scale}")
    add("--jitter", type=int, help="pixels, at most, that the image moves before a step")
    add("--tile", type=int, help="side in pixels of the tile that is computed at a time, for large images")
    add("--tv", type=float, help="weight of the total variation; 0.1 smooths a little, 1 strongly")
    add("--detail", type=float, help="share of the start image's detail that is restored at each size; default: 1")
    add("--seed", type=int, help="of noise and jitter; default: 0")


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    size = (int(height), int(width or height))
    if min(size) < 1:
        raise ValueError
    return size


def _numbers(text: str) -> list[int]:
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    if not numbers:
        raise ValueError
    return numbers


def _print_recipe(path: str, screen: Screen) -> None:
    files = import_module("nameplate.interpret.image_files")
    for key, value in files.read_recipe(path).items():
        screen.say(f"{key:<10} {value}")


if __name__ == "__main__":
    # The same command gives the same picture, on a GPU too. TensorFlow reads this on import.
    os.environ.setdefault("TF_DETERMINISTIC_OPS", "1")
    sys.exit(main())
