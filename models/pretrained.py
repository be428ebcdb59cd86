"""Weights for the backbone of `model=applications`: those that Keras publishes, or those of a file, by name."""

from __future__ import annotations

import hashlib
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras

import nameplate
from nameplate.errors import cause
from nameplate.formats.registry import is_weights, kind
from nameplate.graph.keras_private import undisturbed
from nameplate.io.transfer import write_plan
from nameplate.naming.names import did_you_mean
from nameplate.section import ConfigError
from nameplate.weights.plan import Line, WeightPlan, listing
from trainer.models.applications import DEVIATION, constructor_of, find, without_preprocessing
from trainer.models.config import ApplicationsConfig
from trainer.models.keras_private import cache_folder, downloads_answered

IMAGENET = "imagenet"
_CLASSES = 1000  # of the published classifiers
_PATIENCE = 30.0  # seconds that a server may be silent


def load_pretrained(model: keras.Model, config: ApplicationsConfig, *, say: Callable[[str], None]) -> WeightPlan | None:
    """Load the weights of `model.weights` into the backbone of a built model, each by its name; None if there are none.

    Every variable of the backbone gets a value. What else a file has, such as a classifier, is left out; the plan has
    it. `say` prints that something is downloaded.

    Raises:
        ConfigError: there is no such file or it cannot be downloaded, or it does not have all of the backbone.
    """
    if config.weights is None or config.backbone is None:
        return None
    backbone = nameplate.layer(model, config.backbone)
    if config.include_top and config.weights == IMAGENET and (classes := backbone.output_shape[-1]) != _CLASSES:
        raise ConfigError(
            [
                f"model.include_top: the published classifier is for {_CLASSES} classes, the data has {classes}; "
                "leave out model.include_top=true"
            ]
        )
    source, label = _source(config, backbone, say)
    plan = _whole(nameplate.plan(source, backbone, label=label, automatic=_pairing(source)), backbone)
    write_plan(plan, backbone)
    if isinstance(source, keras.Model) and find(config.name).startswith("EfficientNetB"):
        _fold_deviation(backbone)
    return plan


def _source(
    config: ApplicationsConfig, backbone: keras.Model, say: Callable[[str], None]
) -> tuple[keras.Model | str, str]:
    """Return a model with the published weights, or the path of another file; and what to call it."""
    if config.weights == IMAGENET:
        file = published(config, backbone)
        return _loaded(config, backbone, _cached(file, say)), f"{file.name} (imagenet)"
    path = _existing(str(config.weights))
    if path.suffix == ".h5" and _md5(path) == _md5_of_published(config, backbone):
        return _loaded(config, backbone, path), f"{path} (imagenet)"
    return str(path), str(path)


def _md5_of_published(config: ApplicationsConfig, backbone: keras.Model) -> str | None:
    try:
        return published(config, backbone).md5
    except ConfigError:
        return None


def _existing(text: str) -> Path:
    path = Path(text).expanduser()
    if kind(path) is not None and is_weights(path):
        return path
    if path.is_dir():
        raise ConfigError(
            [
                f"model.weights: {text!r} is a directory; give a file, or for a run or a checkpoint leave it out and "
                f"use init=checkpoint init.path={text}"
            ]
        )
    if path.is_file():
        raise ConfigError(
            [f"model.weights: {text!r} is not called like a file of weights: .weights.h5, .h5, .keras, ..."]
        )
    there = sorted(other.name for other in path.parent.iterdir()) if path.parent.is_dir() else []
    near = did_you_mean(text, [IMAGENET]) or did_you_mean(path.name, [name for name in there if kind(Path(name))])
    raise ConfigError([f"model.weights: no file at {text!r}.{near} Give imagenet or a file of weights"])


def _pairing(source: Any) -> Any:
    """Return whether names that Keras made up are paired by class and order; PyTorch's are not its."""
    return None if isinstance(source, str) and not source.endswith((".h5", ".keras")) else "pair"


def _whole(plan: WeightPlan, backbone: keras.Model) -> WeightPlan:
    """Return the plan without the rest of its source, once every variable of the backbone has a value.

    Raises:
        ConfigError: with every variable that has none.
    """
    lacking = [line for line in plan.problems if line.target]
    if lacking:
        others = [line for line in plan.problems if not line.target]
        head = (
            f"model.weights: {plan.source} has {len(plan.taken)} of the {len(plan.taken) + len(lacking)} variables of "
            f"this {backbone.name}; nothing was loaded:"
        )
        advice = "Is it of the same model.name and model.arguments, e.g. alpha?"
        raise ConfigError(["\n".join([head, *listing(lacking, 8), *listing(others, 4), f"  {advice}"])])

    def left(line: Line) -> Line:
        return replace(line, verdict="left", reason="not of the backbone") if line.verdict == "unexpected" else line

    return plan.with_lines(map(left, plan.lines))


def range_problem(least: float, most: float) -> str | None:
    """Return the problem of images with these values, unless they are from 0 to 1: the model scales them from there."""
    if least >= 0 and (1 / 200 < most <= 1.01 or most == 0):
        return None
    found = f"data: the images have values from {least:.4g} to {most:.4g}, and weights are for images from 0 to 1"
    if least >= 0 and most > 1:
        return f"{found}; data.scale=0.00392157 (of data=arrays) or your own code divides by 255"
    return f"{found}, which the model scales itself; leave out data.scale, or the scaling in your own code"


# ---- published weights ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Published:
    """A file of weights that Keras publishes for an architecture."""

    name: str
    address: str
    md5: str | None  # of its content; Keras does not have it for MobileNet and MobileNetV2
    folder: str  # in Keras' folder of downloads

    @property
    def place(self) -> Path:
        """Where Keras keeps it."""
        return cache_folder() / self.folder / self.name


class _Asked(Exception):  # noqa: N818 - not an error: it ends the construction of a model that only asks for its file
    def __init__(self, file: Published) -> None:
        self.file = file


def published(config: ApplicationsConfig, backbone: keras.Model) -> Published:
    """Return the file that Keras publishes for the backbone of a configuration.

    Raises:
        ConfigError: there is none, e.g. for this `alpha`.
    """

    def asked(fname: str, origin: str, *, cache_subdir: str, file_hash: str | None = None) -> str:
        raise _Asked(Published(fname, origin, file_hash, cache_subdir))

    reason = "Keras publishes none"
    try:
        _as_published(config, backbone, asked)
    except _Asked as answer:
        return answer.file
    except ValueError as error:
        reason = str(error).strip().splitlines()[0]
    what = f"{find(config.name)} for images {tuple(backbone.input_shape[1:])}"
    raise ConfigError([f"model.weights: no published weights for {what}: {reason}\n  Give a file instead"])


def _as_published(config: ApplicationsConfig, backbone: keras.Model, answer: Callable[..., str]) -> keras.Model:
    """Return the architecture with the weights of the file that `answer` gives, loaded by Keras in its own order."""
    constructor, top = constructor_of(find(config.name)), {"classifier_activation": None} if config.include_top else {}
    with undisturbed(), downloads_answered(answer), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras has weights for some sizes, and takes those of 224 for others
        return constructor(
            weights=IMAGENET,
            include_top=config.include_top,
            input_shape=tuple(backbone.input_shape[1:]),
            **top,
            **without_preprocessing(find(config.name)),
            **config.arguments,
        )


def _loaded(config: ApplicationsConfig, backbone: keras.Model, path: Path) -> keras.Model:
    """Return the architecture with the weights of a published file."""
    try:
        return _as_published(config, backbone, lambda *_, **__: str(path))
    except Exception as error:  # h5py raises what it likes for a damaged file
        raise ConfigError([f"model.weights: {path} cannot be loaded as the published file: {cause(error)}"]) from None


def _cached(file: Published, say: Callable[[str], None]) -> Path:
    """Return the path of a published file, downloaded by Keras if it is not in its folder."""
    place = file.place
    if place.is_file():
        if file.md5 is not None and _md5(place) != file.md5:
            raise ConfigError(
                [
                    f"model.weights: {place} is not the published file: its MD5 is {_md5(place)}, not {file.md5}; "
                    "remove it to download it again"
                ]
            )
        return place
    say(f"downloading {file.name} to {place.parent}")
    try:
        with _impatient():
            return Path(keras.utils.get_file(file.name, file.address, cache_subdir=file.folder, file_hash=file.md5))
    except Exception as error:  # urllib, the disk, a wrong hash
        raise ConfigError(
            [
                f"model.weights: {file.name} cannot be downloaded: {_plain(error, file.address)}\n"
                f"  Put the file into {place.parent}, or give it as model.weights=PATH; "
                "model.weights=null begins with random weights"
            ]
        ) from None


def _plain(error: Exception, address: str) -> str:
    """Return what went wrong, without the address."""
    text = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
    return text.replace(address, "").removeprefix("URL fetch failure on : ").removeprefix("None -- ")


@contextmanager
def _impatient() -> Iterator[None]:
    """Let a server be silent for so long and no longer."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _fold_deviation(backbone: keras.Model) -> None:
    """Put the layer that Keras adds to EfficientNetB0 to B7 for published weights into the normalization before it.

    It divides by the roots of the deviations (tensorflow#49930), and has no weights by which it could be named.
    """
    layer = next(layer for layer in backbone.layers if isinstance(layer, keras.layers.Normalization))
    layer.adapt_variance.assign(layer.adapt_variance.numpy() * DEVIATION)
    layer.finalize_state()
