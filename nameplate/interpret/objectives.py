"""Objectives of dreams: terms over layer names, added, scaled and subtracted. No framework.

    0.7 * layer("mixed3") + 0.3 * channel("backbone/mixed5", 12) - class_logit(3)

An objective is data: it can be printed, parsed again, and stored with an image; `measures` computes its value. A number
may be a list (`channel("conv1", [0, 1, 2])`) with one entry for each image of the batch.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from nameplate.errors import NameplateError
from nameplate.naming.names import SEPARATOR, did_you_mean, fault

Numbers: TypeAlias = int | tuple[int, ...]  # channels or classes; a tuple has one for each image of a batch
Labels: TypeAlias = int | str | tuple[int | str, ...]  # classes, by their numbers or names
Classes: TypeAlias = Mapping[str, Sequence[str]]  # the names of the classes of each output


class ObjectiveError(NameplateError):
    """An objective that cannot be written or measured."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A reference for content and style: its pixels, and the text that a recipe has for them."""

    pixels: np.ndarray = field(repr=False)  # (height, width, channels), float in the model's range, or uint8
    text: str = "..."


@dataclass(frozen=True)
class Layer:
    """The mean square of a layer's output."""

    name: str


@dataclass(frozen=True)
class Channel:
    """The mean of one channel over all positions; one unit of a layer without positions."""

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
    """The mean over all positions of the dot product with a unit vector over the channels."""

    name: str
    vector: tuple[float, ...]


@dataclass(frozen=True)
class ClassLogit:
    """A class's logit: an output before its softmax or sigmoid."""

    number: Labels  # names are replaced by numbers before anything is measured
    output: str | None  # name of the output; None: the only one


@dataclass(frozen=True, eq=False)
class Content:
    """The closeness of a layer's maps to those of a reference: minus the mean squared distance."""

    name: str
    picture: Picture


@dataclass(frozen=True, eq=False)
class Style:
    """The closeness of the correlations between a layer's channels to those of a reference."""

    name: str
    picture: Picture


Term: TypeAlias = Layer | Channel | Neuron | Direction | ClassLogit | Content | Style


@dataclass(frozen=True, eq=False)
class Objective:
    """A sum of terms, each with its factor."""

    terms: tuple[tuple[float, Term], ...]

    def __add__(self, other: object) -> Objective:
        # sum() starts from 0.
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
        return Objective(tuple((factor * own, term) for own, term in self.terms))

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
        """The number of images in the batch if a term has one number for each; else None.

        Raises:
            ObjectiveError: two terms have lists of different lengths.
        """
        numbers = [term.number for _, term in self.terms if isinstance(term, Channel | Neuron | ClassLogit)]
        lengths = {len(number) for number in numbers if isinstance(number, tuple)}
        if len(lengths) > 1:
            raise ObjectiveError(f"{self}: the lists have {sorted(lengths)} numbers; each image of the batch takes one")
        return next(iter(lengths), None)


def layer(name: str) -> Objective:
    """Return the mean square of a layer's output, the objective of Deep Dream (Mordvintsev et al., 2015)."""
    return _single(Layer(_text(name)))


def channel(name: str, number: int | Sequence[int]) -> Objective:
    """Return the mean of a layer's channel, counted from 0; a list has one channel for each image."""
    return _single(Channel(_text(name), _numbers(number)))


def neuron(name: str, number: int | Sequence[int], at: Sequence[int] | int | None = None) -> Objective:
    """Return a channel at the position `at`: (row, column) or a token's index; by default the middle."""
    place = None if at is None else (int(at),) if isinstance(at, int) else tuple(map(int, at))
    return _single(Neuron(_text(name), _numbers(number), place))


def direction(name: str, vector: Sequence[float] | np.ndarray) -> Objective:
    """Return the mean product of a layer's channels with `vector`, (channels,), scaled to length 1."""
    values = np.asarray(vector, dtype=float)
    length = float(np.linalg.norm(values))
    if values.ndim != 1 or not length or not np.isfinite(length):
        raise ObjectiveError(f"direction({name!r}, ...): the vector must be (channels,), finite and not zero")
    return _single(Direction(_text(name), tuple(map(float, values / length))))


def class_logit(number: int | str | Sequence[int | str], output: str | None = None) -> Objective:
    """Return the logit of a class, counted from 0, at the model's only output or at the one named `output`.

    A class may be given by its name, where the names are known: of a run, or `nameplate.dream(..., classes=...)`.
    """
    several = not isinstance(number, int | str | np.integer)
    given: list[Any] = list(number) if several else [number]  # type: ignore[arg-type]
    labels = tuple(each if isinstance(each, str) and each else _numbers(each) for each in given) or _numbers(())
    return _single(ClassLogit(labels if several else labels[0], output))  # type: ignore[arg-type, index]


def numbered(objective: Objective, classes: Classes) -> Objective:
    """Return the objective with the numbers of classes in the place of their names.

    Raises:
        ObjectiveError: no output has such a class, or several have; no names are known.
    """
    return Objective(tuple((factor, _numbered(term, classes)) for factor, term in objective.terms))


def _numbered(term: Term, classes: Classes) -> Term:
    if not isinstance(term, ClassLogit):
        return term
    several = isinstance(term.number, tuple)
    labels = term.number if isinstance(term.number, tuple) else (term.number,)
    places = [class_place(label, classes, term.output) for label in labels]
    if len({output for _, output in places}) > 1:
        raise ObjectiveError(f"{_term_text(term)}: the classes belong to several outputs; write a term for each")
    numbers = tuple(number for number, _ in places)
    return ClassLogit(numbers if several else numbers[0], places[0][1])


def class_place(label: int | str, classes: Classes, output: str | None = None) -> tuple[int, str | None]:
    """Return the number of a class, given as a number, its digits or its name, and the output that has it.

    The output is None where none was given and there is only one with names.

    Raises:
        ObjectiveError: no output has such a class, or several have; no names are known.
    """
    if not isinstance(label, str):
        return int(label), output
    known = {name: list(names) for name, names in classes.items() if output in (None, name)}
    found = [(names.index(label), name) for name, names in known.items() if label in names]
    if len(found) == 1:
        return found[0][0], output or (found[0][1] if len(classes) > 1 else None)
    if found:
        shown = ", ".join(name for _, name in found)
        raise ObjectiveError(
            f"{label!r} is a class of {shown}; name one, as in class_logit({label!r}, {found[0][1]!r})"
        )
    if label.isdecimal():
        return int(label), output
    if not known:
        raise ObjectiveError(f"{label!r}: no names of classes are known here; give the number of the class, from 0")
    names = [name for own in known.values() for name in own]
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    raise ObjectiveError(f"no class is called {label!r}.{did_you_mean(label, names)} There are {shown}")


def content(name: str, picture: np.ndarray | Picture) -> Objective:
    """Return the closeness of a layer's maps to a reference's, pixels (height, width, channels)."""
    return _single(Content(_text(name), _picture(picture)))


def style(name: str, picture: np.ndarray | Picture) -> Objective:
    """Return the closeness of a layer's channel correlations to a reference's (Gatys et al., 2015)."""
    return _single(Style(_text(name), _picture(picture)))


def _single(term: Term) -> Objective:
    return Objective(((1.0, term),))


def _text(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise ObjectiveError(f"an objective names a layer by its qualified name, not by {name!r}")
    return name


def _numbers(number: int | Sequence[int]) -> Numbers:
    numbers = [number] if isinstance(number, int | np.integer) else list(number)
    if not numbers or any(isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 0 for n in numbers):
        raise ObjectiveError(f"{number!r}: channels and classes are whole numbers from 0, or a list of them")
    return int(numbers[0]) if isinstance(number, int | np.integer) else tuple(map(int, numbers))


def _picture(picture: np.ndarray | Picture) -> Picture:
    picture = picture if isinstance(picture, Picture) else Picture(np.asarray(picture))
    if picture.pixels.ndim != 3:
        raise ObjectiveError(f"a reference has the shape (height, width, channels), not {picture.pixels.shape}")
    return picture


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
            return f'direction("{name}", {[float(f"{component:.6g}") for component in vector]})'
        case ClassLogit(number, output):
            return f"class_logit({_listed(number)}" + (f', "{output}")' if output else ")")
        case Content(name, picture):
            return f'content("{name}", "{picture.text}")'
        case Style(name, picture):
            return f'style("{name}", "{picture.text}")'


def _listed(number: Labels) -> str:
    if isinstance(number, tuple):
        return f"[{', '.join(map(_listed, number))}]"
    return f'"{number}"' if isinstance(number, str) else str(number)


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
    """Return the objective that `text` describes; a bare qualified name means its layer.

    Raises:
        ObjectiveError: anything other than terms with numbers and names, added, subtracted and scaled.
    """
    if not any(fault(part) for part in text.split(SEPARATOR)):
        return layer(text)
    try:
        value = _value(ast.parse(text.strip(), mode="eval").body, open_picture)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ObjectiveError(f"{text!r} is not an objective; {_EXAMPLE}") from None
    except TypeError as error:
        raise ObjectiveError(f"{text!r} is not an objective: {error}; {_EXAMPLE}") from None
    if not isinstance(value, Objective):
        raise ObjectiveError(f"{text!r} has no term; {_EXAMPLE}")
    return value


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
        case ast.Call(func=ast.Name(id=word), args=arguments, keywords=keywords) if all(k.arg for k in keywords):
            named = {str(keyword.arg): _value(keyword.value, open_picture) for keyword in keywords}
            return _term(word, [_value(argument, open_picture) for argument in arguments], named, open_picture)
    raise ObjectiveError(f"{ast.unparse(node)!r} cannot be part of an objective; {_EXAMPLE}")


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


def _term(word: str, arguments: list[Any], named: dict[str, Any], open_picture: Open | None) -> Objective:
    if word not in TERMS:
        raise ObjectiveError(f"no term is called {word!r}.{did_you_mean(word, TERMS)} There are {', '.join(TERMS)}")
    if word in _WITH_PICTURE:
        if open_picture is None:
            raise ObjectiveError(f"{word}: references are read from files on the command line only; pass their pixels")
        arguments = [open_picture(value) if place == 1 else value for place, value in enumerate(arguments)]
        named = {key: open_picture(value) if key == "picture" else value for key, value in named.items()}
    return TERMS[word](*arguments, **named)
