"""Names freeze at compile: a later assignment to any `layer.name` in the tree is found and told."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from nameplate.graph.global_state import collector_paused
from nameplate.graph.rename import rename, repaired
from nameplate.graph.serializable import uncarried
from nameplate.graph.tree import named, output_names, require_model, walk
from nameplate.naming import names
from nameplate.naming import policy as policies
from nameplate.naming.policy import NamingError, Policy, PolicyMode, Violation

# Keras' own methods that hand names on; each looks at the manifest first once a model is frozen. The last two are what
# `keras.saving.save_model` asks a model for when it writes a `.keras` file, and an `.h5` file.
_GUARDED = ("fit", "save", "save_weights", "export", "get_compile_config", "get_config")
_MANIFEST = "_nameplate_frozen"


@dataclass(frozen=True)
class Frozen:
    """The names of a model as they were; data only, in the order of the walk."""

    model: str
    layers: tuple[tuple[str, object], ...]  # qualified name, and the own name as the layer itself says it
    growing: bool = False  # whether layers may still come, since not all were built

    def check(self, model: keras.Model) -> None:
        """Compare the model's names with these.

        Raises:
            NamingError: with who changed from what to what, and with layers that came or went.
        """
        now = Frozen(*_names(model))
        if now.layers == self.layers and now.model == self.model:
            return
        if self.growing and now.model == self.model and set(self.layers) <= set(now.layers):
            return
        raise NamingError(
            "\n".join([f"the names of {self.model!r} changed after they were frozen:", *_told(self, now)])
        )


def freeze(model: keras.Model) -> Frozen:
    """Return the manifest of the model's names, and let all of Keras that trains or saves it check it from now on."""
    require_model(model)
    return _frozen(model, growing=False)


def arm(model: keras.Model) -> keras.Model:
    """Return the model itself; its own `compile` freezes its names from now on."""
    compile_ = type(model).compile.__get__(model)

    @functools.wraps(compile_)
    def call(*arguments: Any, **keywords: Any) -> None:
        recheck(model)
        compile_(*arguments, **keywords)
        _frozen(model, growing=not all(getattr(each, "built", True) for each in _holders(model)))

    vars(model)["compile"] = call
    return model


def _holders(model: keras.Model) -> list[Any]:
    return [model, *(entry.layer for entry in walk(model))]


def _frozen(model: keras.Model, *, growing: bool) -> Frozen:
    frozen = Frozen(*_names(model), growing)
    vars(model)[_MANIFEST] = frozen
    for method in _GUARDED:
        vars(model)[method] = _guarded(getattr(type(model), method).__get__(model), frozen, model)
    return frozen


def recheck(model: keras.Model) -> None:
    """Compare a model's names with its manifest, if it has one.

    Raises:
        NamingError: as `Frozen.check`.
    """
    frozen: Frozen | None = vars(model).get(_MANIFEST)
    if frozen is not None:
        frozen.check(model)


def _names(model: keras.Model) -> tuple[str, tuple[tuple[str, object], ...]]:
    return str(model.name), tuple((entry.name, entry.layer.name) for entry in walk(model))


def _guarded(method: Callable[..., Any], frozen: Frozen, model: keras.Model) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*arguments: Any, **keywords: Any) -> Any:
        frozen.check(model)
        return method(*arguments, **keywords)

    return call


def _told(before: Frozen, now: Frozen) -> list[str]:
    lines = []
    if before.model != now.model:
        lines.append(f"  the model itself: {before.model!r} became {now.model!r}")
    if len(before.layers) == len(now.layers):
        pairs = zip(before.layers, now.layers, strict=True)
        lines += [f"  {old}: {was!r} became {to!r}" for (old, was), (_, to) in pairs if was != to]
    else:
        known, present = dict(before.layers), dict(now.layers)
        lines += [f"  {name}: no longer there" for name in known if name not in present]
        lines += [f"  {name}: not there before" for name in present if name not in known]
    advice = "Set the names back, or rename before compile: nameplate.rename(model, {old: new}) gives a new model."
    if any(names.fault(to) for _, to in now.layers):
        advice += " Some of these names cannot be saved."
    return [*lines, advice]


__all__ = ["Frozen", "NamingError", "check", "enforce", "freeze", "rename"]

_log = logging.getLogger(__name__)


def check(model: keras.Model, policy: Policy | str = "strict") -> list[Violation]:
    """Return every rule that a name of the model's tree breaks, and the grammar for its own; under `off` nothing.

    A name that the caller gave is not automatic, though Keras might have made it up; of a model from a file nobody
    knows, so that there the look decides. Layers whose class loses a name in a file, or cannot be loaded from one, are
    found too. No name makes it raise.

    Names alone are looked at, not whether the model can be copied or saved.

    Raises:
        NameplateError: for what is no model, and for a policy that does not exist or cannot be used.
    """
    require_model(model)
    policy = policies.named_policy(policy)
    if policy.mode is PolicyMode.off:
        return []
    with collector_paused():  # a large model would be looked through for every few layers
        entries = walk(model)
        found = policies.violations(policy, named(entries), outputs=output_names(model))
        return policies.model_name_violations(model.name) + found + uncarried(entries)


def enforce(
    model: keras.Model,
    policy: Policy | str = "strict",
    *,
    report: Callable[[list[Violation]], None] | None = None,
    remedy: str = policies.REMEDY,
) -> keras.Model:
    """Return a model that keeps the policy; its names freeze when it is compiled, except under `off`.

    Under `strict` and `off` it is the model itself. Under `report` too, and the violations go to `report`, or
    to the log as a table. `remedy` is what a refusal advises where all names can be repaired.

    Proved: the names; of a repaired model all that `rename` proves. Not proved: that the model can be saved.

    Raises:
        NamingError: with every violation, under `strict`.
    """
    policy = policies.named_policy(policy)
    if policy.mode is PolicyMode.off:
        return model
    found = check(model, policy)
    if not found:
        return arm(model)
    if policy.mode is PolicyMode.report:
        if report is not None:
            report(found)
        else:
            _log.warning("%s", policies.text(found, model=model.name, policy=policy, remedy=remedy))
        return arm(model)
    if policy.mode is PolicyMode.repair:
        model = repaired(model, policy)
        found = check(model, policy)
        if not found:
            return arm(model)
    raise NamingError(policies.text(found, model=model.name, policy=policy, remedy=remedy), found)
