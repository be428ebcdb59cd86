"""Image files: PNG with the recipe of the image inside, and reading what any program wrote."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from models.errors import NameplateError

RECIPE = "nameplate"  # key of the PNG text that holds the recipe, JSON


class ImageFileError(NameplateError):
    """A file that is no image, or has no recipe."""


def save_image(path: str | os.PathLike[str], pixels: np.ndarray, *, recipe: Mapping[str, Any]) -> Path:
    """Write uint8 pixels (height, width, 1 or 3) as PNG with the recipe in its metadata, by one rename.

    Raises:
        ImageFileError: the path does not end in .png, or cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise ImageFileError(f"{target}: dreams are written as .png, whose metadata holds their recipe")
    text = PngImagePlugin.PngInfo()
    text.add_itxt(RECIPE, json.dumps(recipe, sort_keys=True))
    text.add_itxt("Software", "Nameplate")
    draft = target.with_name(f".{target.name}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        as_image(pixels).save(draft, format="PNG", pnginfo=text)
        os.replace(draft, target)
    except OSError as error:
        raise ImageFileError(f"{target} cannot be written: {error}") from None
    finally:
        with contextlib.suppress(OSError):  # what is in the way of the file is in the way of its draft
            draft.unlink(missing_ok=True)
    return target


def read_recipe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the recipe in a PNG file.

    Raises:
        ImageFileError: it is no image, or holds none.
    """
    with _opened(Path(path)) as image:
        text = getattr(image, "text", {}).get(RECIPE)
    if text is None:
        raise ImageFileError(f"{path} has no recipe: it was not dreamt here, or another program wrote it anew")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ImageFileError(f"{path}: its recipe is not what this program writes")
    return found


def read_image(path: str | os.PathLike[str], *, channels: int) -> np.ndarray:
    """Return an image file's pixels as uint8 (height, width, channels), turned as the camera was held.

    Raises:
        ImageFileError: there is no such file, or it is no image; or `channels` is neither 1 nor 3.
    """
    if channels not in (1, 3):
        raise ImageFileError(f"{path}: a file holds grey or coloured images, and the model takes {channels} channels")
    from PIL import ImageOps

    with _opened(Path(path)) as image:
        upright = ImageOps.exif_transpose(image)
        pixels = np.asarray((upright or image).convert("L" if channels == 1 else "RGB"))
    return pixels[..., None] if channels == 1 else pixels


def as_image(pixels: np.ndarray) -> Image.Image:
    """Return uint8 pixels (height, width, 1 or 3) as an image; of other numbers of channels the first, in grey."""
    return Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0])


def _opened(path: Path) -> Image.Image:
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ImageFileError(f"{path} is not a file")
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError:
        raise ImageFileError(f"there is no file at {path}") from None
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageFileError(f"{path} cannot be read as an image: {error}") from None
    return image
