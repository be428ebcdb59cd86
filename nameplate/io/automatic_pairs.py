"""Automatic names of a file or model paired with those of a model, and the advice to do so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras

from nameplate.graph.explicit_names import has_given_name
from nameplate.graph.tree import variables, walk
from nameplate.io.file_names import outermost, seed_states
from nameplate.naming import names
from nameplate.naming.rules import Rule, apply_rules
from nameplate.weights.automatic_names import Owners, paired
from nameplate.weights.plan import Form, WeightPlan, forms_of

RENUMBERED = "and a model built again in the same process gets other numbers"
_SHOWN = 3


def pair_rules(
    model: keras.Model, forms: Mapping[str, Form], rules: Sequence[Rule] = (), *, format_: str = ""
) -> list[Rule]:
    """Return the rules that pair the automatic names of a source with those of the model, by class and order.

    Args:
        model: the target.
        forms: of the source's arrays, by name.
        rules: what they match, on both sides, is not paired.
        format_: of a file.
    """
    renamed = apply_rules(list(forms), rules)
    left = {name: form for name, form in forms.items() if name not in renamed.rules}
    ruled = {new for old, new in renamed.names.items() if old in renamed.rules}
    drawn = any(names.split(name)[1] == "state" for name in left)  # Keras' own files have no seeds
    without = ruled if drawn else ruled | seed_states(model)
    targets = {name: form for name, form in forms_of(variables(model)).items() if name not in without}
    entries = walk(model)
    owners = Owners(
        {entry.name: type(entry.layer).__name__ for entry in entries},
        {entry.name for entry in entries if has_given_name(entry.layer)},
    )
    return paired(left, targets, owners, outer=outermost(model, list(left), format_=format_))


def advice(rules: Sequence[Rule], plan: WeightPlan, *, remedy: str) -> str | None:
    """Return the sentence for a plan that these pairs would mend, in full or in part; None if there are none."""
    if not rules:
        return None
    news = {rule.new for rule in rules}
    solved = [
        any(rule.matches(line.source) for rule in rules) if line.source else names.split(line.name)[0] in news
        for line in plan.problems
    ]
    shown = ", ".join(f"{rule.old} for {rule.new}" for rule in rules[:_SHOWN])
    more = f" and {len(rules) - _SHOWN} more" if len(rules) > _SHOWN else ""
    what = "All that differs are" if all(solved) else "Among what differs are"
    return f"{what} names that Keras made up, {RENUMBERED}: {shown}{more}. {remedy}"
