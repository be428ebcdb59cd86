"""Image files: written as PNG with the recipe inside, read in any common format; and sheets of pictures."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin, UnidentifiedImageError

from nameplate.checkpoint import durable
from nameplate.errors import NameplateError

RECIPE = "nameplate"  # key of the PNG text that holds the recipe, JSON


class ImageFileError(NameplateError):
    """A file that is not an image, or has no recipe."""


def save_image(path: str | os.PathLike[str], pixels: np.ndarray, *, recipe: Mapping[str, Any]) -> Path:
    """Write uint8 pixels (height, width, 1 or 3) as PNG, atomically, with the recipe in its metadata.

    Raises:
        ImageFileError: the path does not end in .png, or cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise ImageFileError(f"{target}: dreams are written as .png, whose metadata holds their recipe")
    text = PngImagePlugin.PngInfo()
    text.add_itxt(RECIPE, json.dumps(recipe, sort_keys=True))
    text.add_itxt("Software", "Nameplate")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with durable.replacement(target) as draft:
            as_image(pixels).save(draft, format="PNG", pnginfo=text)
    except OSError as error:
        raise ImageFileError(f"{target} cannot be written: {error}") from None
    return target


def read_recipe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the recipe in a PNG file.

    Raises:
        ImageFileError: it is not an image, or has no recipe.
    """
    with _opened(Path(path)) as image:
        text = getattr(image, "text", {}).get(RECIPE)
    if text is None:
        raise ImageFileError(f"{path} has no recipe: it was not dreamt here, or another program rewrote it")
    try:
        recipe = json.loads(text)
    except (ValueError, RecursionError):
        recipe = None
    if not isinstance(recipe, dict):
        raise ImageFileError(f"{path}: its recipe is not what this program writes")
    return recipe


def read_image(path: str | os.PathLike[str], *, channels: int) -> np.ndarray:
    """Return an image file's pixels as uint8 (height, width, channels), rotated as its EXIF data says.

    Raises:
        ImageFileError: there is no such file, it is not an image, or `channels` is neither 1 nor 3.
    """
    if channels not in (1, 3):
        raise ImageFileError(f"{path}: a file has 1 or 3 channels, and the model takes {channels}")
    from PIL import ImageOps

    with _opened(Path(path)) as image:
        upright = ImageOps.exif_transpose(image)
        pixels = np.asarray((upright or image).convert("L" if channels == 1 else "RGB"))
    return pixels[..., None] if channels == 1 else pixels


def as_image(pixels: np.ndarray) -> Image.Image:
    """Return uint8 pixels (height, width, 1 or 3) as an image; any other number of channels: the first, in grey."""
    return Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0])


def _opened(path: Path) -> Image.Image:
    if path.exists() and not path.is_file():  # opening a pipe would block
        raise ImageFileError(f"{path} is not a file")
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError:
        raise ImageFileError(f"there is no file at {path}") from None
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageFileError(f"{path} cannot be read as an image: {error}") from None
    return image


_PAPER, _INK = (250, 250, 248), (40, 40, 40)
_GAP, _LINE = 8, 18  # pixels between pictures, and below a picture for its name


def sheet(
    pictures: Mapping[str, np.ndarray], *, columns: int | None = None, side: int = 160, smooth: bool = True
) -> np.ndarray:
    """Return a sheet with every picture under its name, uint8 (height, width, 3).

    Args:
        pictures: name to uint8 (height, width, 1 or 3).
        columns: pictures in a row; None: about as many as there are rows.
        side: pixels, at least, of a picture's longer side on the sheet; small pictures are enlarged.
        smooth: whether enlarging interpolates; false: pixels stay squares.
    """
    images = [_enlarged(as_image(pixels).convert("RGB"), side, smooth=smooth) for pixels in pictures.values()]
    across = min(len(images), columns or math.ceil(math.sqrt(len(images))))
    rows = [images[first : first + across] for first in range(0, len(images), across)]
    width, heights = max(image.width for image in images), [max(image.height for image in row) for row in rows]
    paper = Image.new("RGB", (across * (width + _GAP) + _GAP, sum(heights) + len(rows) * (_LINE + _GAP) + _GAP), _PAPER)
    draw, font = ImageDraw.Draw(paper), ImageFont.load_default()
    names, top = iter(pictures), _GAP
    for row, height in zip(rows, heights, strict=True):
        for place, image in enumerate(row):
            left = _GAP + place * (width + _GAP)
            paper.paste(image, (left, top))
            draw.text((left, top + height + 2), _fitting(next(names), width, draw, font), fill=_INK, font=font)
        top += height + _LINE + _GAP
    return np.asarray(paper)


def maps_sheet(maps: Mapping[str, np.ndarray], *, most: int = 16, side: int = 64) -> np.ndarray:
    """Return a sheet of activations: a row a layer, its channels side by side, uint8 (height, width, 3).

    `maps` has (height, width, channels), or (channels,), which is shown as one bar. Each channel goes from dark, its
    minimum, to light, its maximum; of more than `most` channels, those with the largest variance are shown, in order.
    """
    rows = {name: _row(values, most=most, side=side) for name, values in maps.items()}
    return sheet(rows, columns=1, side=1)


def enlarged(pixels: np.ndarray, side: int) -> np.ndarray:
    """Return uint8 pixels enlarged by a whole factor, so that the longer side has at least `side`."""
    factor = max(1, -(-side // max(pixels.shape[:2])))
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def _row(values: np.ndarray, *, most: int, side: int) -> np.ndarray:
    if values.ndim == 1:
        return _scaled(np.tile(_light(values[None]), (1, 1))[..., None], side // 4, most * (side + 2))
    height, width = values.shape[:2]
    chosen = _most_varied(values, most)
    tall = max(1, round(side * height / max(height, width))), max(1, round(side * width / max(height, width)))
    cells = [_scaled(_light(values[..., channel])[..., None], *tall) for channel in chosen]
    gap = np.full((tall[0], 2, 3), _PAPER, np.uint8)
    return np.concatenate([part for cell in cells for part in (cell, gap)], axis=1)


def _most_varied(values: np.ndarray, most: int) -> Sequence[int]:
    variance = values.reshape(-1, values.shape[-1]).var(axis=0)
    return sorted(np.argsort(-variance, kind="stable")[:most].tolist())


def _light(values: np.ndarray) -> np.ndarray:
    """Return values scaled from their minimum to their maximum as uint8; constant values are 0."""
    least, span = float(values.min()), float(np.ptp(values))
    return np.round(255 * (values - least) / span).astype(np.uint8) if span else np.zeros(values.shape, np.uint8)


def _scaled(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(as_image(pixels).convert("RGB").resize((width, height), Image.Resampling.NEAREST))


def _enlarged(image: Image.Image, side: int, *, smooth: bool) -> Image.Image:
    factor = side / max(image.size)
    if factor <= 1:
        return image
    size = (round(image.width * factor), round(image.height * factor))
    return image.resize(size, Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST)


def _fitting(
    name: str, width: int, draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont
) -> str:
    """Return a name cut to fit under a picture; its end is kept, where it differs from its neighbours'."""
    shown = name
    while len(shown) > 4 and draw.textlength(shown, font=font) > width:
        shown = "..." + shown.removeprefix("...")[1:]
    return shown
