"""A learning rate of its own for the layers that a pattern names, with every optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras

from models.errors import NameplateError
from models.tree import variables
from models.weights import matches, require_matches
from trainer.replicas.private.optimizers import built_for, inner_optimizer, scale_updates


def set_rates(model: keras.Model, rates: Mapping[str, float], *, usual: float) -> dict[str, float]:
    """Let variables learn at rates of their own, under the same schedule; return `{variable: rate}` of all that train.

    Weight decay goes with the rate. Of several patterns that match a variable the longest counts: `tower/conv1` over
    `tower`. The optimizer is built, and nothing of it is saved or restored otherwise than without.

    Args:
        model: compiled; its optimizer is changed.
        rates: `{pattern of variables, layers or containers: rate at its highest}`.
        usual: the optimizer's own rate at its highest, for the rest.

    Raises:
        NameplateError: with every pattern that is for nothing: matches no variable, none that trains, or none that no
            longer pattern has; and with two as long as each other that disagree.
    """
    inner = inner_optimizer(model.optimizer)
    learning = {id(each) for each in built_for(inner)}
    names = {name: each for name, each in variables(model).items() if id(each) in learning}
    require_matches(variables(model), list(rates))
    chosen = {name: _longest(name, rates) for name in names}
    idle = [pattern for pattern in rates if pattern not in chosen.values()]
    if idle:
        lines = "\n".join(f"  {each!r}: {_why(each, list(names), chosen)}" for each in idle)
        raise NameplateError(f"these learning rates are for nothing:\n{lines}")
    found = {name: usual if pattern is None else rates[pattern] for name, pattern in chosen.items()}
    if rates:
        scale_updates(inner, [(names[name], rate / usual) for name, rate in found.items()])
    return found


def in_words(rates: Mapping[str, float], found: Mapping[str, float]) -> str:
    """Return how many variables learn at which rate."""
    counts = {rate: sum(each == rate for each in found.values()) for rate in found.values()}
    told = ", ".join(f"{count} variable{'s' if count != 1 else ''} at {rate:g}" for rate, count in counts.items())
    return f"learning rates: {told} ({', '.join(f'{pattern} {rate:g}' for pattern, rate in rates.items())})"


def _longest(name: str, rates: Mapping[str, float]) -> str | None:
    """Return the pattern that a variable's rate is from.

    Raises:
        NameplateError: two are equally long, and their rates differ.
    """
    found = [pattern for pattern in rates if matches(name, pattern)]
    longest = [pattern for pattern in found if len(pattern) == max(map(len, found))]
    if len({rates[pattern] for pattern in longest}) > 1:
        both = " and ".join(f"{pattern!r} ({rates[pattern]:g})" for pattern in longest)
        raise NameplateError(f"optimizer.rates: {both} both match {name}, and are equally long; leave one out")
    return longest[0] if longest else None


def _why(pattern: str, names: Sequence[str], chosen: Mapping[str, str | None]) -> str:
    own = [name for name in names if matches(name, pattern)]
    if not own:
        return "what it matches does not train"
    return f"what it matches has the rate of {', '.join(sorted({repr(chosen[name]) for name in own}))}"
