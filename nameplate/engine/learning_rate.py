"""Learning rates: a schedule that warms up linearly and then decays, and rates of their own for some variables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.optimizers import schedules

from nameplate.engine import private
from nameplate.engine.optimizer_state import inner_optimizer
from nameplate.errors import NameplateError
from nameplate.graph.tree import variables
from nameplate.weights.named import matches, require_matches

PIECES = 512  # of a table; Keras evaluates each of them at every step


@keras.saving.register_keras_serializable(package="nameplate")
class WarmupDecay(keras.optimizers.schedules.LearningRateSchedule):
    """The rate at a step: linear from 0 over `warmup_steps`, then by `decay` to `final * rate` over `decay_steps`.

    Decays: constant; linear; cosine (Loshchilov and Hutter, 2016, without restarts); exponential (geometric).
    """

    def __init__(self, *, rate: float, decay: str, warmup_steps: int, decay_steps: int, final: float) -> None:
        self.rate, self.decay, self.final = rate, decay, final
        self.warmup_steps, self.decay_steps = warmup_steps, decay_steps

    def __call__(self, step: Any) -> Any:
        """Return the rate of a step, counted from 0; a float32 scalar."""
        step = ops.cast(step, "float32")
        warm = ops.minimum((step + 1.0) / max(self.warmup_steps, 1), 1.0) if self.warmup_steps else 1.0
        done = ops.clip((step - self.warmup_steps) / self.decay_steps, 0.0, 1.0)
        return self.rate * warm * self._left(done)

    def _left(self, done: Any) -> Any:
        """Return the fraction of the full rate that is left when the fraction `done` of the decay is over."""
        match self.decay:
            case "linear":
                return 1.0 - (1.0 - self.final) * done
            case "cosine":
                return self.final + (1.0 - self.final) * 0.5 * (1.0 + ops.cos(math.pi * done))
            case "exponential":
                return ops.exp(math.log(self.final) * done)
        return ops.ones_like(done)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        keys = ("rate", "decay", "warmup_steps", "decay_steps", "final")
        return {key: getattr(self, key) for key in keys}

    def values(self, steps: Sequence[float] | np.ndarray) -> np.ndarray:
        """Return the rates of several steps, (n,) to (n,) float32."""
        return np.asarray(self(np.asarray(steps, np.float32)))


def keras_schedule(rate: Any, *, steps: int) -> Any:
    """Return a learning rate as plain Keras can load it: the same curve over the `steps` of a run.

    Keras' own schedules are exact, and so is a table of up to `PIECES` steps. A longer warm-up before a decay has
    neither: Keras' cosine is then within 1 / `decay_steps` of the highest rate, a table within about 1 / 250.
    """
    if not isinstance(rate, WarmupDecay):
        return rate
    if not rate.warmup_steps and rate.decay != "constant" and (decay := _decay(rate, steps)) is not None:
        return decay
    if rate.decay == "constant":
        return _warmup(rate)
    if rate.decay == "cosine" and rate.warmup_steps > 1 and rate.warmup_steps + rate.decay_steps > PIECES:
        # Keras starts to decay at the first step with the full rate, one step before ours does.
        return schedules.CosineDecay(
            rate.rate / rate.warmup_steps,
            rate.decay_steps + 1,
            alpha=rate.final,
            warmup_target=rate.rate,
            warmup_steps=rate.warmup_steps - 1,
        )
    return _table(rate)


def _decay(rate: WarmupDecay, steps: int) -> Any:
    """Return Keras' own decay without a warm-up; None if it has none that is equal."""
    if rate.decay == "cosine":
        return schedules.CosineDecay(rate.rate, rate.decay_steps, alpha=rate.final)
    if rate.decay == "linear":
        return schedules.PolynomialDecay(rate.rate, rate.decay_steps, end_learning_rate=rate.rate * rate.final)
    if steps <= rate.decay_steps:  # after them Keras' falls further, and ours stays
        return schedules.ExponentialDecay(rate.rate, rate.decay_steps, rate.final)
    return None


def _warmup(rate: WarmupDecay) -> Any:
    if rate.warmup_steps < 2:
        return rate.rate
    first = rate.rate / rate.warmup_steps
    return schedules.PolynomialDecay(first, rate.warmup_steps - 1, end_learning_rate=rate.rate)


def _table(rate: WarmupDecay) -> Any:
    """Return the curve in pieces of one step; if these are too many, in longer ones with the rate in their middle."""
    warmup, end = rate.warmup_steps, rate.warmup_steps + rate.decay_steps
    few = min(warmup, PIECES // 4)
    starts = np.concatenate(
        [np.linspace(0, warmup, few, endpoint=False), np.linspace(warmup, end, min(rate.decay_steps, PIECES - few) + 1)]
        if end > PIECES
        else [np.arange(end + 1)]
    ).astype(np.int64)
    middles = np.append((starts[:-1] + starts[1:] - 1) / 2, end)
    return schedules.PiecewiseConstantDecay((starts[1:] - 1).tolist(), rate.values(middles).tolist())


def set_rates(model: keras.Model, rates: Mapping[str, float], *, usual: float) -> dict[str, float]:
    """Set the rates of some variables, under the same schedule; return `{variable: rate}` of all that train.

    Weight decay is scaled with the rate. Of several patterns that match a variable the longest counts: `tower/conv1`
    over `tower`. The optimizer must be built; its saved state is the same as without.

    Args:
        model: compiled; its optimizer is changed.
        rates: `{pattern of variables, layers or containers: rate at its highest}`.
        usual: the optimizer's own rate at its highest, for the rest.

    Raises:
        NameplateError: a pattern matches no variable, none that trains, or none that is not covered by a longer one;
            or two equally long patterns disagree.
    """
    inner = inner_optimizer(model.optimizer)
    trained = {id(variable) for variable in private.built_for(inner)}
    names = {name: variable for name, variable in variables(model).items() if id(variable) in trained}
    require_matches(variables(model), list(rates))
    chosen = {name: _longest(name, rates) for name in names}
    unused = [pattern for pattern in rates if pattern not in chosen.values()]
    if unused:
        lines = "\n".join(f"  {pattern!r}: {_why_unused(pattern, list(names), chosen)}" for pattern in unused)
        raise NameplateError(f"these learning rates are unused:\n{lines}")
    of_variable = {name: usual if pattern is None else rates[pattern] for name, pattern in chosen.items()}
    if rates:
        _scale_updates(inner, [(names[name], rate / usual) for name, rate in of_variable.items()])
    return of_variable


def describe_rates(rates: Mapping[str, float], found: Mapping[str, float]) -> str:
    """Return a line with the number of variables that learn at each rate."""
    counts = {rate: sum(each == rate for each in found.values()) for rate in found.values()}
    groups = ", ".join(f"{count} variable{'s' if count != 1 else ''} at {rate:g}" for rate, count in counts.items())
    return f"learning rates: {groups} ({', '.join(f'{pattern} {rate:g}' for pattern, rate in rates.items())})"


def _longest(name: str, rates: Mapping[str, float]) -> str | None:
    """Return the pattern that decides a variable's rate.

    Raises:
        NameplateError: two are equally long, and their rates differ.
    """
    matching = [pattern for pattern in rates if matches(name, pattern)]
    longest = [pattern for pattern in matching if len(pattern) == max(map(len, matching))]
    if len({rates[pattern] for pattern in longest}) > 1:
        both = " and ".join(f"{pattern!r} ({rates[pattern]:g})" for pattern in longest)
        raise NameplateError(f"optimizer.rates: {both} both match {name}, and are equally long; leave one out")
    return longest[0] if longest else None


def _why_unused(pattern: str, names: Sequence[str], chosen: Mapping[str, str | None]) -> str:
    own = [name for name in names if matches(name, pattern)]
    if not own:
        return "what it matches does not train"
    return f"what it matches has the rate of {', '.join(sorted({repr(chosen[name]) for name in own}))}"


def _scale_updates(optimizer: keras.Optimizer, factors: Sequence[tuple[keras.Variable, float]]) -> None:
    """Let an optimizer update some variables at a multiple of its learning rate, and decay them at that multiple.

    Every optimizer of Keras computes an update in `update_step(gradient, variable, learning_rate)`, and decays weights
    at its own rate (optimizers/base_optimizer.py). Both are given either Keras'
    variables or TensorFlow's, so variables are identified by the optimizer's own index.
    """
    of_index = {private.index_of(optimizer, variable): factor for variable, factor in factors if factor != 1.0}
    update, usual = optimizer.update_step, optimizer.weight_decay

    def factor_of(variable: Any) -> float:
        return of_index.get(private.index_of(optimizer, variable), 1.0)

    def update_step(gradient: Any, variable: Any, learning_rate: Any) -> None:
        factor = factor_of(variable)
        update(gradient, variable, learning_rate if factor == 1.0 else learning_rate * factor)

    def apply_weight_decay(variables: Sequence[Any]) -> None:
        if usual is None:
            return
        try:
            for factor in dict.fromkeys(map(factor_of, variables)):
                optimizer.weight_decay = usual * factor
                alike = [variable for variable in variables if factor_of(variable) == factor]
                private.decay_as_class(optimizer, alike)
        finally:
            optimizer.weight_decay = usual

    optimizer.update_step = update_step
    private.set_decay(optimizer, apply_weight_decay)
