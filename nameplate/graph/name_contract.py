"""Names as a contract: checked against a policy before compile, and frozen at compile.

Keras lets anyone assign `layer.name` at any time. A frozen model notices this before it trains or is saved.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from nameplate.arguments import checked
from nameplate.formats.policy_file import AnyPolicy, policy_of
from nameplate.graph.global_state import collector_paused
from nameplate.graph.rename import model_name_violations, rename, repaired
from nameplate.graph.serializable import lost_names
from nameplate.graph.tree import named, output_names, require_model, walk
from nameplate.naming import names
from nameplate.naming import policy as policies
from nameplate.naming.policy import NamingError, PolicyMode, Violation

__all__ = ["Frozen", "NamingError", "check", "enforce", "freeze", "rename"]

_log = logging.getLogger(__name__)

# Keras' methods that pass names on; in a frozen model each compares the names with the manifest first. The last two are
# what `keras.saving.save_model` calls when it writes a `.keras` file, and an `.h5` file.
GUARDED = ("fit", "save", "save_weights", "export", "get_compile_config", "get_config")
_MANIFEST = "_nameplate_frozen"


@checked
def check(model: keras.Model, policy: AnyPolicy = "strict") -> list[Violation]:
    """Return every violation of the policy by a name in the model's tree or by its own; nothing under `off`.

    A name that the caller chose is not automatic, even if it looks like one of Keras'. In a model from a file it is
    unknown who chose a name, and there its form decides. Layers whose class loses its name in a file, or cannot be
    loaded from one, are violations too. Only names are checked, not whether the model can be copied or saved.

    Args:
        model: any Keras model, built or not.
        policy: a `Policy`, the name of a mode (`strict`, `report`, `repair`, `off`), or the path of a policy file.

    Raises:
        NameplateError: for anything that is not a model, and for a policy that does not exist or cannot be used.
    """
    require_model(model)
    policy = policy_of(policy)
    if policy.mode is PolicyMode.off:
        return []
    with collector_paused():  # which would scan a large model once every few layers
        entries = walk(model)
        in_tree = policies.violations(policy, named(entries), outputs=output_names(model))
        return model_name_violations(model, policy) + in_tree + lost_names(entries)


@checked
def enforce(
    model: keras.Model,
    policy: AnyPolicy = "strict",
    *,
    report: Callable[[list[Violation]], None] | None = None,
    remedy: str = policies.REMEDY,
) -> keras.Model:
    """Return a model that satisfies the policy; its names freeze when it is compiled, except under `off`.

    Under `strict`, `report` and `off` it is the model itself, under `repair` a copy if a name had to change.

    Proved: the names; of a repaired model all that `rename` proves. Not proved: that the model can be saved.

    Args:
        model: any Keras model, not compiled yet.
        policy: a `Policy`, the name of a mode (`strict`, `report`, `repair`, `off`), or the path of a policy file.
        report: called with the violations under `report`; by default they are logged as a table.
        remedy: the advice in the error if all names can be repaired.

    Raises:
        NamingError: with every violation, under `strict`.
    """
    policy = policy_of(policy)
    if policy.mode is PolicyMode.off:
        return model
    violations = check(model, policy)
    if not violations:
        return arm(model)
    if policy.mode is PolicyMode.report:
        if report is not None:
            report(violations)
        else:
            _log.warning("%s", policies.text(violations, model=model.name, policy=policy, remedy=remedy))
        return arm(model)
    if policy.mode is PolicyMode.repair:
        model = repaired(model, policy)
        violations = check(model, policy)
        if not violations:
            return arm(model)
    raise NamingError(policies.text(violations, model=model.name, policy=policy, remedy=remedy), violations)


# ---- frozen names -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frozen:
    """The names of a model when they were frozen: plain data, in the order of the walk."""

    model: str
    layers: tuple[tuple[str, object], ...]  # (qualified name, `layer.name`)
    growing: bool = False  # whether layers may still be added, since not all were built

    def check(self, model: keras.Model) -> None:
        """Compare the model's names with these.

        Raises:
            NamingError: with each changed name, and with layers that were added or removed.
        """
        now = Frozen(*_names(model))
        if now.layers == self.layers and now.model == self.model:
            return
        if self.growing and now.model == self.model and set(self.layers) <= set(now.layers):
            return
        raise NamingError(
            "\n".join([f"the names of {self.model!r} changed after they were frozen:", *_changes(self, now)])
        )


@checked
def freeze(model: keras.Model) -> Frozen:
    """Return the model's names, and check them from now on whenever Keras trains or saves the model.

    Args:
        model: any Keras model; its `fit`, `save`, `save_weights` and `export` check the names first.

    Raises:
        NameplateError: for anything that is not a model.
    """
    require_model(model)
    if not isinstance(model, keras.Model):  # a layer that trains is not saved as a model is
        return Frozen(*_names(model))
    return _frozen(model, growing=False)


def arm(model: keras.Model) -> keras.Model:
    """Return the model itself, whose `compile` now freezes its names."""
    compile_ = type(model).compile.__get__(model)

    @functools.wraps(compile_)
    def call(*arguments: Any, **keywords: Any) -> None:
        recheck(model)
        compile_(*arguments, **keywords)
        layers = [model, *(entry.layer for entry in walk(model))]
        _frozen(model, growing=not all(getattr(layer, "built", True) for layer in layers))

    vars(model)["compile"] = call
    return model


def _frozen(model: keras.Model, *, growing: bool) -> Frozen:
    frozen = Frozen(*_names(model), growing)
    vars(model)[_MANIFEST] = frozen
    for method in GUARDED:
        vars(model)[method] = _guarded(getattr(type(model), method).__get__(model), frozen, model)
    return frozen


def recheck(model: keras.Model) -> None:
    """Compare a model's names with those that were frozen, if any.

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


def _changes(before: Frozen, now: Frozen) -> list[str]:
    lines = []
    if before.model != now.model:
        lines.append(f"  the model itself: {before.model!r} became {now.model!r}")
    if len(before.layers) == len(now.layers):
        pairs = zip(before.layers, now.layers, strict=True)
        lines += [f"  {old}: {was!r} became {to!r}" for (old, was), (_, to) in pairs if was != to]
    else:
        known, present = dict(before.layers), dict(now.layers)
        lines += [f"  {name}: removed" for name in known if name not in present]
        lines += [f"  {name}: added" for name in present if name not in known]
    advice = "Set the names back, or rename before compile: nameplate.rename(model, {old: new}) returns a new model."
    if any(names.fault(to) for _, to in now.layers):
        advice += " Some of these names cannot be saved."
    return [*lines, advice]
