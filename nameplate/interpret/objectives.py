"""What a dream maximises: terms over layer names, added, scaled and subtracted. No framework.

    0.7 * layer("mixed3") + 0.3 * channel("backbone/mixed5", 12) - class_logit(3)

An objective is data: it can be printed, read back, and stored with an image. `measures` gives it its numbers. A number
that may be a list (`channel("conv1", [0, 1, 2])`) holds one for each image of the batch.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from nameplate.errors import NameplateError
from nameplate.naming.names import SEPARATOR, did_you_mean, fault

Numbers: TypeAlias = int | tuple[int, ...]  # of a channel or class; a tuple has one for each image of a batch


class ObjectiveError(NameplateError):
    """An objective that cannot be written or measured."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A reference for content and style: pixels, and the text that stands for them in a recipe."""

    pixels: np.ndarray = field(repr=False)  # (height, width, channels), float in the model's range, or uint8
    text: str = "..."


@dataclass(frozen=True)
class Layer:
    """The mean square of everything that a layer gives."""

    name: str


@dataclass(frozen=True)
class Channel:
    """The mean of one channel over all positions; of a layer without positions one unit."""

    name: str
    number: Numbers


@dataclass(frozen=True)
class Neuron:
    """One channel at one position."""

    name: str
    number: Numbers
    at: tuple[int, ...] | None  # (row, column) of the layer's map; None: its middle


@dataclass(frozen=True)
class Direction:
    """The mean over all positions of the product with a unit vector in the space of channels."""

    name: str
    vector: tuple[float, ...]


@dataclass(frozen=True)
class ClassLogit:
    """A class's logit: an output before its softmax or sigmoid."""

    number: Numbers
    output: str | None  # name of the output; None: the only one


@dataclass(frozen=True, eq=False)
class Content:
    """How near a layer's maps are to those of a reference: minus the mean squared distance."""

    name: str
    picture: Picture


@dataclass(frozen=True, eq=False)
class Style:
    """How near the correlations of a layer's channels are to those of a reference, wherever they occur."""

    name: str
    picture: Picture


Term: TypeAlias = Layer | Channel | Neuron | Direction | ClassLogit | Content | Style


@dataclass(frozen=True, eq=False)
class Objective:
    """A sum of terms, each with its factor."""

    terms: tuple[tuple[float, Term], ...]

    def __add__(self, other: object) -> Objective:
        # 0 is where sum() begins.
        if isinstance(other, int) and other == 0:
            return self
        return Objective(self.terms + other.terms) if isinstance(other, Objective) else NotImplemented

    __radd__ = __add__

    def __neg__(self) -> Objective:
        return self * -1.0

    def __sub__(self, other: object) -> Objective:
        return self + -other if isinstance(other, Objective) else NotImplemented

    def __mul__(self, factor: object) -> Objective:
        if isinstance(factor, bool) or not isinstance(factor, int | float):
            return NotImplemented
        return Objective(tuple((factor * each, term) for each, term in self.terms))

    __rmul__ = __mul__

    def __truediv__(self, divisor: object) -> Objective:
        if isinstance(divisor, bool) or not isinstance(divisor, int | float):
            return NotImplemented
        return self * (1.0 / divisor)

    def __str__(self) -> str:
        return " + ".join(_scaled(factor, term) for factor, term in self.terms).replace("+ -", "- ")

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that the terms name, each once."""
        return tuple(dict.fromkeys(term.name for _, term in self.terms if not isinstance(term, ClassLogit)))

    @property
    def images(self) -> int | None:
        """How many images a batch must have, where a term has a number for each; else None.

        Raises:
            ObjectiveError: two terms have lists of different lengths.
        """
        numbers = [term.number for _, term in self.terms if isinstance(term, Channel | Neuron | ClassLogit)]
        lengths = {len(each) for each in numbers if isinstance(each, tuple)}
        if len(lengths) > 1:
            raise ObjectiveError(f"{self}: the lists have {sorted(lengths)} numbers; each image of the batch takes one")
        return next(iter(lengths), None)


def layer(name: str) -> Objective:
    """Return the mean square of a layer's output, Deep Dream's own objective (Mordvintsev et al., 2015)."""
    return _single(Layer(_text(name)))


def channel(name: str, number: int | Sequence[int]) -> Objective:
    """Return the mean of a layer's channel, counted from 0; a list has one channel for each image."""
    return _single(Channel(_text(name), _numbers(number)))


def neuron(name: str, number: int | Sequence[int], at: Sequence[int] | int | None = None) -> Objective:
    """Return a channel at `at`, (row, column) in the layer's map or a token's index; the middle without it."""
    place = None if at is None else (int(at),) if isinstance(at, int) else tuple(int(each) for each in at)
    return _single(Neuron(_text(name), _numbers(number), place))


def direction(name: str, vector: Sequence[float] | np.ndarray) -> Objective:
    """Return the mean product of a layer's channels with `vector`, (channels,), scaled to length 1."""
    values = np.asarray(vector, dtype=float)
    length = float(np.linalg.norm(values))
    if values.ndim != 1 or not length or not np.isfinite(length):
        raise ObjectiveError(f"direction({name!r}, ...): a vector with a length is needed, (channels,)")
    return _single(Direction(_text(name), tuple(float(each) for each in values / length)))


def class_logit(number: int | Sequence[int], output: str | None = None) -> Objective:
    """Return the logit of a class, counted from 0, at the model's only output or at the one called `output`."""
    return _single(ClassLogit(_numbers(number), output))


def content(name: str, picture: np.ndarray | Picture) -> Objective:
    """Return how near a layer's maps are to the reference's, pixels (height, width, channels)."""
    return _single(Content(_text(name), _picture(picture)))


def style(name: str, picture: np.ndarray | Picture) -> Objective:
    """Return how near a layer's correlations of channels are to the reference's (Gatys et al., 2015)."""
    return _single(Style(_text(name), _picture(picture)))


def _single(term: Term) -> Objective:
    return Objective(((1.0, term),))


def _text(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise ObjectiveError(f"an objective names a layer by its qualified name, not by {name!r}")
    return name


def _numbers(number: int | Sequence[int]) -> Numbers:
    each = [number] if isinstance(number, int | np.integer) else list(number)
    if not each or any(isinstance(one, bool) or not isinstance(one, int | np.integer) or one < 0 for one in each):
        raise ObjectiveError(f"{number!r}: channels and classes are whole numbers from 0, or a list of them")
    return int(each[0]) if isinstance(number, int | np.integer) else tuple(int(one) for one in each)


def _picture(picture: np.ndarray | Picture) -> Picture:
    found = picture if isinstance(picture, Picture) else Picture(np.asarray(picture))
    if found.pixels.ndim != 3:
        raise ObjectiveError(f"a reference has the shape (height, width, channels), not {found.pixels.shape}")
    return found


def _scaled(factor: float, term: Term) -> str:
    text = _term_text(term)
    if factor == 1:
        return text
    return f"-{text}" if factor == -1 else f"{factor:g} * {text}"


def _term_text(term: Term) -> str:
    match term:
        case Layer(name):
            return f'layer("{name}")'
        case Channel(name, number):
            return f'channel("{name}", {_listed(number)})'
        case Neuron(name, number, at):
            return f'neuron("{name}", {_listed(number)}' + (f", {list(at)})" if at else ")")
        case Direction(name, vector):
            return f'direction("{name}", {[float(f"{each:.6g}") for each in vector]})'
        case ClassLogit(number, output):
            return f"class_logit({_listed(number)}" + (f', "{output}")' if output else ")")
        case Content(name, picture):
            return f'content("{name}", "{picture.text}")'
        case Style(name, picture):
            return f'style("{name}", "{picture.text}")'


def _listed(number: Numbers) -> str:
    return str(list(number)) if isinstance(number, tuple) else str(number)


Open = Callable[[str], Picture]  # the path of a reference to its pixels

TERMS: dict[str, Callable[..., Objective]] = {
    "layer": layer,
    "channel": channel,
    "neuron": neuron,
    "direction": direction,
    "class_logit": class_logit,
    "content": content,
    "style": style,
}
_WITH_PICTURE = ("content", "style")
_EXAMPLE = 'e.g. 0.7 * layer("mixed3") + 0.3 * channel("mixed5", 12)'


def parse(text: str, *, open_picture: Open | None = None) -> Objective:
    """Return the objective that `text` writes; a bare qualified name means its layer.

    Raises:
        ObjectiveError: for anything else than terms with numbers and names, added, subtracted and scaled.
    """
    if not any(fault(part) for part in text.split(SEPARATOR)):
        return layer(text)
    try:
        found = _value(ast.parse(text.strip(), mode="eval").body, open_picture)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ObjectiveError(f"{text!r} is no objective; {_EXAMPLE}") from None
    except TypeError as error:
        raise ObjectiveError(f"{text!r} is no objective: {error}; {_EXAMPLE}") from None
    if not isinstance(found, Objective):
        raise ObjectiveError(f"{text!r} has no term; {_EXAMPLE}")
    return found


def _value(node: ast.expr, open_picture: Open | None) -> Any:
    match node:
        case ast.Constant(value=int() | float() | str() as value):
            return value
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [_value(part, open_picture) for part in parts]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, open_picture)
        case ast.BinOp(left=left, op=operator, right=right):
            return _combined(_value(left, open_picture), operator, _value(right, open_picture))
        case ast.Call(func=ast.Name(id=word), args=given, keywords=named) if all(each.arg for each in named):
            keywords = {str(each.arg): _value(each.value, open_picture) for each in named}
            return _term(word, [_value(each, open_picture) for each in given], keywords, open_picture)
    raise ObjectiveError(f"{ast.unparse(node)!r} has no place in an objective; {_EXAMPLE}")


def _combined(left: Any, operator: ast.operator, right: Any) -> Any:
    match operator:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.Div() if right:
            return left / right
    raise ObjectiveError(f"objectives are added, subtracted, and scaled by numbers; {_EXAMPLE}")


def _term(word: str, given: list[Any], named: dict[str, Any], open_picture: Open | None) -> Objective:
    if word not in TERMS:
        raise ObjectiveError(f"no term is called {word!r}.{did_you_mean(word, TERMS)} There are {', '.join(TERMS)}")
    if word in _WITH_PICTURE:
        if open_picture is None:
            raise ObjectiveError(f"{word}: references come from files on the command line only; pass their pixels")
        given = [open_picture(each) if place == 1 else each for place, each in enumerate(given)]
        named = {key: open_picture(each) if key == "picture" else each for key, each in named.items()}
    return TERMS[word](*given, **named)
