"""The pictures that `python -m trainer.dream` makes: dreams, activations and Grad-CAM, on sheets, written as PNG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nameplate.data.dataset import Dataset
from nameplate.data.source import Stream
from nameplate.engine.event_files import EventFile
from nameplate.engine.strategy import describe, make_strategy
from nameplate.errors import NameplateError
from nameplate.interpret import objectives
from nameplate.interpret.dream import Dreamer, Progress, default_size, defaults
from nameplate.interpret.image_files import enlarged, save_image, sheet
from nameplate.interpret.layer_outputs import WHOLE, Cut, flat, matching
from nameplate.interpret.look import look, overlay, saliency
from nameplate.interpret.measures import logits
from nameplate.interpret.objectives import (
    Classes,
    Objective,
    ObjectiveError,
    Picture,
    class_place,
    numbered,
    parse,
)
from nameplate.interpret.settings import Settings, settings_of
from nameplate.interpret.start_images import PATTERNS, credited, pixels_of
from nameplate.training import progress as versions
from nameplate.training.console import Screen
from trainer.cli.chosen_model import strategy_config
from trainer.job.model import Rebuilt, rebuild

_MOST = 16  # pictures on a sheet of channels or classes without --numbers
_SHOWN = 256  # pixels, at least, of a single picture's longer side
_EXAMPLE = "example:"


@dataclass(frozen=True)
class PictureRequest:
    """What the command line asks for."""

    model: str
    objective: str | None = None
    layers: Sequence[str] | None = None
    channels: str | None = None
    classes: bool = False
    look: Sequence[str] | None = None
    named: Sequence[str] | None = None  # classes
    grad_cam: str | None = None
    at: str | None = None
    image: str | None = None
    size: tuple[int, int] | None = None
    numbers: Sequence[int] | None = None
    count: int | None = None
    over: str | None = None
    out: str = "dream.png"
    tensorboard: str | None = None
    replicas: int | None = None
    trust: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """What every kind of picture needs: the model, the start image and the settings."""

    request: PictureRequest
    source: Rebuilt
    start: np.ndarray | None  # (height, width, channels) in the range of values; None: noise
    inputs: Mapping[str, np.ndarray]  # of the model's other inputs
    settings: Settings
    screen: Screen


def make(request: PictureRequest, screen: Screen) -> Path:
    """Make the picture, write it, and return its path.

    Raises:
        NameplateError: no such model, layer, image or device, or an empty request.
    """
    strategy = make_strategy(strategy_config(request.replicas))
    if strategy.num_replicas_in_sync > 1:
        screen.say(describe(strategy))
    with strategy.scope():
        work = _prepared(request, screen)
        picture, about = _picture(work)
    recipe = _recipe(work, about)
    path = save_image(request.out, picture, recipe=recipe)
    if request.tensorboard:
        _to_tensorboard(request.tensorboard, picture, tag=about["what"], step=work.source.step or 0)
    screen.say(f"{path}: {about['what']}, {picture.shape[1]} by {picture.shape[0]} pixels")
    return path


def _prepared(request: PictureRequest, screen: Screen) -> Work:
    source = rebuild(request.model, trust=request.trust)
    start, inputs = _example(request, source)
    port = Cut(source.model, [], inputs=inputs).port
    settings = settings_of(defaults(port, from_noise=request.image is None), dict(request.settings))
    if request.image and start is None:
        size = request.size or default_size(port)
        start = settings.in_range(
            pixels_of(request.image, size, channels=port.shape[-1] or 3, own=request.size is None)
        )
    return Work(request, source, start, inputs, settings, screen)


def _example(request: PictureRequest, source: Rebuilt) -> tuple[np.ndarray | None, dict[str, np.ndarray]]:
    """Return the image and the other inputs of the example `example:N` of the run's data."""
    if not (request.image or "").startswith(_EXAMPLE):
        return None, {}
    number = (request.image or "").removeprefix(_EXAMPLE)
    dataset = _opened(source, request)
    part = dataset.validation or dataset.train
    if isinstance(part, Stream):
        raise NameplateError(f"{source.origin} has a stream as data, without numbers; give an image file")
    if not number.isdigit() or int(number) >= part.size:
        raise NameplateError(f"{request.image}: examples are numbered 0 to {part.size - 1}")
    x = part.load(np.array([int(number)], np.int64))[0]
    values = x if isinstance(x, dict) else {next(iter(dataset.inputs)): x}
    arrays = {name: np.asarray(value)[0] for name, value in values.items()}
    over = request.over or next(iter(arrays))
    if over not in arrays:
        raise NameplateError(f"--over: no input {over!r}; there are {', '.join(arrays)}")
    return arrays.pop(over), arrays


def _opened(source: Rebuilt, request: PictureRequest) -> Dataset:
    """Open the data of a run, which only `example:N` needs."""
    if source.data is None:
        raise NameplateError(f"{source.origin} has no data to take {request.image} from; give an image file")
    try:
        return source.data()
    except NameplateError as error:
        raise NameplateError(
            f"{request.image} is in the run's data, which cannot be opened here: {error}\nGive an image file."
        ) from error


def _picture(work: Work) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the requested picture as uint8 (height, width, 1 or 3), and its description."""
    request = work.request
    if request.look:
        start = _required_start(work)
        shown = look(work.source.model, start, request.look, values=work.settings.values, inputs=work.inputs)
        return shown, {"what": f"look at {', '.join(request.look)}"}
    if request.grad_cam is not None:
        return _grad_cam(work)
    if request.layers:
        return _layers(work)
    if request.channels or request.classes or request.named:
        return _numbered(work)
    if request.objective:
        return _single(work)
    known = matching(work.source.model, ["*"])
    raise NameplateError(
        f"nothing to dream of: name a layer, e.g. {known[0]}, or see --help. Layers: {', '.join(known)}"
    )


def _single(work: Work) -> tuple[np.ndarray, dict[str, Any]]:
    channels = Cut(work.source.model, [], inputs=work.inputs).port.shape[-1] or 3

    def opened(path: str) -> Picture:
        return Picture(pixels_of(path, (256, 256), channels=channels, own=True), path)

    objective = parse(work.request.objective or "", open_picture=opened)
    images = _dreamt(work, numbered(objective, work.source.data_record.classes), str(objective))
    pictures = {str(place): image for place, image in enumerate(images)}
    shown = enlarged(images[0], _SHOWN) if len(images) == 1 else sheet(pictures, smooth=False)
    return shown, {"what": str(objective)}


def _layers(work: Work) -> tuple[np.ndarray, dict[str, Any]]:
    """Dream of each layer by itself; a layer that cannot be dreamt of is reported and skipped."""
    pictures = {}
    names = matching(work.source.model, work.request.layers or ())
    for place, name in enumerate(names):
        try:
            pictures[name] = _dreamt(work, objectives.layer(name), f"{name} ({place + 1} of {len(names)})")[0]
        except ObjectiveError as error:
            if len(names) == 1:
                raise
            work.screen.say(f"skipped: {error}")
    if not pictures:
        raise ObjectiveError(f"none of {', '.join(names)} can be dreamt of")
    return sheet(pictures, smooth=False), {"what": f"layers {', '.join(pictures)}"}


def _numbered(work: Work) -> tuple[np.ndarray, dict[str, Any]]:
    """Dream of several channels or classes at once, as one batch."""
    name, known = work.request.channels, work.source.data_record.classes
    if work.request.named:
        wanted = objectives.class_logit(work.request.named)
        titles = [f"class {label}" for label in work.request.named]
    else:
        numbers = list(work.request.numbers or range(min(_MOST, _counted(work, name))))
        wanted = objectives.channel(name, numbers) if name else objectives.class_logit(numbers)
        titles = [f"channel {number}" if name else f"class {_class_name(known, number)}" for number in numbers]
    images = _dreamt(work, numbered(wanted, known), str(wanted))
    return sheet(dict(zip(titles, images, strict=True)), smooth=False), {"what": str(wanted)}


def _class_name(classes: Classes, number: int) -> str:
    """Return the name of a class of the only output, or its number."""
    names = next(iter(classes.values())) if len(classes) == 1 else ()
    return names[number] if number < len(names) else str(number)


def _counted(work: Work, name: str | None) -> int:
    """Return the number of channels of a layer, or of classes."""
    cut = Cut(work.source.model, [name or WHOLE], inputs=work.inputs)
    size = default_size(cut.port)
    output = cut(np.zeros((1, *size, cut.port.shape[-1] or 3), np.float32))[name or WHOLE]
    return int((flat(output, name) if name else logits(work.source.model, output, None)).shape[-1])


def _grad_cam(work: Work) -> tuple[np.ndarray, dict[str, Any]]:
    request, start = work.request, _required_start(work)
    if request.at is None or request.grad_cam is None:
        raise NameplateError("--grad-cam needs a layer with maps: --at LAYER, usually the last convolution")
    number, output = class_place(request.grad_cam, work.source.data_record.classes)
    heat = saliency(
        work.source.model, start, number, output=output, at=request.at, values=work.settings.values, inputs=work.inputs
    )
    pixels = work.settings.as_bytes(start)
    both = {"image": enlarged(pixels, _SHOWN), f"class {request.grad_cam}": enlarged(overlay(pixels, heat), _SHOWN)}
    return sheet(both, columns=2), {"what": f"class {request.grad_cam} at {request.at}"}


def _required_start(work: Work) -> np.ndarray:
    if work.start is None:
        raise NameplateError(f"an image is needed: --image FILE, {', '.join(PATTERNS)}, or {_EXAMPLE}N of a run's data")
    return work.start


def _dreamt(work: Work, objective: Objective, title: str) -> np.ndarray:
    """Return the images of a dream as uint8 (n, height, width, channels)."""
    dreamer = Dreamer(work.source.model, objective, work.settings, inputs=work.inputs)
    count = objective.images or work.request.count or 1
    if work.start is None:
        start = dreamer.noise(work.request.size, count)
    else:
        start = np.repeat(dreamer.start(work.start), count, axis=0)
    with _shown(work.screen, title) as progress:
        images, values = dreamer.dream(start, progress=progress)
    if work.settings.tile is None:  # with tiles, a whole image may be too large to evaluate
        values = np.stack([dreamer.ascent.value(start), dreamer.ascent.value(images)])
    before, after = float(values[0].mean()), float(values[-1].mean())
    hint = "" if after > before else "; no better: try more --steps, or a larger --rate"
    work.screen.say(f"{title}: {before:.4g} at first, {after:.4g} at last{hint}")
    return work.settings.as_bytes(images)


@contextmanager
def _shown(screen: Screen, title: str) -> Iterator[Progress | None]:
    """Show a bar on a terminal; a log file gets one line at the end."""
    with screen.progress(title) as report:
        yield report and (lambda done, total, value: report(done, total, f"{value:.4g}"))


def _recipe(work: Work, about: Mapping[str, Any]) -> dict[str, Any]:
    request = work.request
    return {
        **about,
        "model": work.source.origin,
        "step": work.source.step,
        "start": credited(request.image) if request.image else "noise",
        "size": list(request.size) if request.size else None,
        "settings": work.settings.plain(),
        "versions": versions.about({})["versions"],
    }


def _to_tensorboard(directory: str, picture: np.ndarray, *, tag: str, step: int) -> None:
    events = EventFile(directory)
    events.write_image(tag, picture, step=step)
    events.close()
