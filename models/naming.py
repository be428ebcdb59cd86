"""The contract of names: check a model against a policy, enforce it."""

from __future__ import annotations

import logging
from collections.abc import Callable

import keras

from models import policy as policies
from models.carrying import uncarried
from models.collector import collector_paused
from models.freezing import Frozen, arm, freeze
from models.policy import Mode, NamingError, Policy, Violation
from models.renaming import rename, repaired
from models.tree import named, output_names, require_model, walk

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
    if policy.mode is Mode.off:
        return []
    with collector_paused():  # a large model would be looked through for every few layers
        entries = walk(model)
        found = policies.violations(policy, named(entries), outputs=output_names(model))
        return policies.of_the_model(model.name) + found + uncarried(entries)


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
    if policy.mode is Mode.off:
        return model
    found = check(model, policy)
    if not found:
        return arm(model)
    if policy.mode is Mode.report:
        if report is not None:
            report(found)
        else:
            _log.warning("%s", policies.text(found, model=model.name, policy=policy, remedy=remedy))
        return arm(model)
    if policy.mode is Mode.repair:
        model = repaired(model, policy)
        found = check(model, policy)
        if not found:
            return arm(model)
    raise NamingError(policies.text(found, model=model.name, policy=policy, remedy=remedy), found)
