"""An objective from text: `0.7 * layer("mixed3") + 0.3 * channel("mixed5", 12)`. Nothing in the text is executed."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from models.names import SEPARATOR, did_you_mean, fault
from trainer.dreaming import objectives
from trainer.dreaming.objectives import Objective, ObjectiveError, Picture

Open = Callable[[str], Picture]  # the path of a reference to its pixels

TERMS: dict[str, Callable[..., Objective]] = {
    "layer": objectives.layer,
    "channel": objectives.channel,
    "neuron": objectives.neuron,
    "direction": objectives.direction,
    "class_logit": objectives.class_logit,
    "content": objectives.content,
    "style": objectives.style,
}
_WITH_PICTURE = ("content", "style")
_EXAMPLE = 'e.g. 0.7 * layer("mixed3") + 0.3 * channel("mixed5", 12)'


def parse(text: str, *, open_picture: Open | None = None) -> Objective:
    """Return the objective that `text` writes; a bare qualified name means its layer.

    Raises:
        ObjectiveError: for anything else than terms with numbers and names, added, subtracted and scaled.
    """
    if not any(fault(part) for part in text.split(SEPARATOR)):
        return objectives.layer(text)
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
