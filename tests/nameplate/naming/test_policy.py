from __future__ import annotations

import itertools
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nameplate.errors import NameplateError
from nameplate.naming.policy import (
    Named,
    NameKind,
    Policy,
    PolicyMode,
    Violation,
    broken,
    named_policy,
    suggestions,
    text,
    violations,
)
from nameplate.naming.suggestions import examples


def tree(*items: tuple[str, str]) -> list[Named]:
    """Return (qualified name, class) pairs as a tree; containers must come first."""
    places = {name: index for index, (name, _) in enumerate(items)}
    return [
        Named(
            name=name,
            own=name.rpartition("/")[2],
            classes=(kind, "Layer"),
            kind=NameKind.INPUT if kind == "InputLayer" else NameKind.LAYER,
            parent=places.get(name.rpartition("/")[0], -1),
            origin=str(index),
        )
        for index, (name, kind) in enumerate(items)
    ]


def rules_of(found: list[Violation]) -> list[tuple[str, str]]:
    return [(violation.name, violation.rule) for violation in found]


@pytest.mark.parametrize(
    ("policy", "items", "broken_rules"),
    [
        (Policy(), [("dense_3", "Dense")], [("dense_3", "automatic")]),
        (Policy(automatic=True), [("dense_3", "Dense")], []),
        (Policy(), [("a b", "Dense")], [("a b", "grammar")]),
        (Policy(max_length=3), [("long", "Dense")], [("long", "grammar")]),
        (Policy(), [("stem", "Dense"), ("Stem", "Dense")], [("Stem", "case")]),
        (Policy(fold_case=False), [("stem", "Dense"), ("Stem", "Dense")], []),
        (Policy(patterns={"Conv2D": r".*_conv\d*"}), [("stem", "Conv2D")], [("stem", "pattern")]),
        (Policy(patterns={"Layer": r"x.*"}), [("stem", "Conv2D")], [("stem", "pattern")]),
        (Policy(patterns={"Conv2D": r".*_conv\d*"}), [("stem_conv1", "Conv2D"), ("fc", "Dense")], []),
        (Policy(required=["head/out"]), [("head", "Model")], [("head/out", "required")]),
        (Policy(forbidden=["tmp.*"]), [("tmp_1", "Dense")], [("tmp_1", "forbidden")]),
        (Policy(forbidden=["a/.*"]), [("a", "Model"), ("a/b", "Dense")], [("a/b", "forbidden")]),
        (Policy(prefixes={"0": "net_"}), [("net_a", "Model"), ("net_a/b", "Dense"), ("c", "Dense")], [("c", "prefix")]),
        (Policy(prefixes={"a": "a_", "1": "x_"}), [("a", "Model"), ("a/b", "Dense")], [("a/b", "prefix")]),
        (Policy(outputs=["label"]), [("logits", "Dense")], [("label", "output")]),
    ],
)
def test_each_rule_finds_what_breaks_it(
    policy: Policy, items: list[tuple[str, str]], broken_rules: list[tuple[str, str]]
) -> None:
    assert rules_of(violations(policy, tree(*items), outputs=["logits"])) == broken_rules


def test_weightless_layers_and_operators_may_be_held_to_the_grammar_only() -> None:
    quiet = [replace(item, weightless=True) for item in tree(("re_lu_1", "ReLU"))]
    operator = [replace(item, kind=NameKind.OPERATOR) for item in tree(("add", "Add"))]
    demand = type(Policy().weightless)

    assert rules_of(violations(Policy(), quiet)) == [("re_lu_1", "automatic")]
    assert violations(Policy(weightless=demand("grammar")), quiet) == []
    assert violations(Policy(), operator) == []
    assert rules_of(violations(Policy(operators=demand("all")), operator)) == [("add", "automatic")]


def test_every_later_use_of_a_name_is_told_with_both_places() -> None:
    found = violations(Policy(), tree(("a", "Dense"), ("a", "Dense"), ("a", "Dense")))

    assert [violation.message for violation in found] == [
        "used twice: first at 0, again at 1",
        "used twice: first at 0, again at 2",
    ]
    assert len({violation.suggestion for violation in found}) == 2


def test_the_same_name_in_two_containers_is_not_a_duplicate() -> None:
    assert violations(Policy(), tree(("a", "M"), ("a/c", "Dense"), ("b", "M"), ("b/c", "Dense"))) == []


NAMES = st.sampled_from(
    ["a", "A", "dense", "dense_1", "dense1", "dense2", "tmp", "x y", "é", "", "conv", "a" * 30, "null"]
)
POLICIES = st.sampled_from(
    [
        Policy(),
        Policy(patterns={"Dense": r"fc\d+_[a-z]+"}),
        Policy(patterns={"Conv2D": r".*_conv\d*", "Dense": r"(head|tail)_\w+"}),
        Policy(prefixes={"0": "net_"}, forbidden=[".*2"]),
        Policy(max_length=8),
        Policy(patterns={"Layer": r"[a-z]{3}\d{2}"}),
    ]
)


@given(POLICIES, st.lists(st.tuples(NAMES, st.sampled_from(["Dense", "Conv2D", "InputLayer"])), max_size=12))
def test_the_suggestions_together_keep_the_policy(policy: Policy, items: list[tuple[str, str]]) -> None:
    before = tree(*items)
    answers = suggestions(policy, before, list(broken(policy, before)))
    after = [
        replace(item, own=answers.get(index, item.own), name=answers.get(index, item.own))
        for index, item in enumerate(before)
    ]

    assert all(answers.values())
    assert broken(policy, after) == {}


@given(POLICIES, st.lists(st.tuples(NAMES, st.sampled_from(["Dense", "Conv2D"])), max_size=8))
def test_suggestions_depend_on_the_tree_alone(policy: Policy, items: list[tuple[str, str]]) -> None:
    assert violations(policy, tree(*items)) == violations(policy, tree(*items))


@pytest.mark.parametrize(
    ("policy", "items"),
    [
        (Policy(patterns={"Dense": ".*_fc"}, prefixes={"0": "m_"}), [("d", "Dense")]),
        (Policy(patterns={"Dense": "m_.*_fc"}, prefixes={"0": "m_"}), [("d", "Dense"), ("dense_3", "Dense")]),
        (Policy(patterns={"Dense": ".*_fc"}), [("dense_3", "Dense"), ("dense_4", "Dense")]),
        (Policy(forbidden=[".*tmp.*", "dense.*"]), [("tmp", "Dense")]),
        (Policy(forbidden=[".*tmp.*", "[dn].*", "layer.*"]), [("tmp", "Dense")]),
        (Policy(max_length=1), [(f"dense_{index}", "Dense") for index in range(36)]),
        (Policy(max_length=1, fold_case=False, automatic=True), [("a", "Dense"), ("A", "Dense"), ("aa", "Dense")]),
        (Policy(max_length=2), [(f"dense_{index}", "Dense") for index in range(400)]),
        (
            Policy(patterns={"Dense": ".*_fc"}, prefixes={"0": "m_"}, max_length=12),
            [("multiplication", "Dense"), ("multiplications", "Dense")],
        ),
    ],
)
def test_rules_that_meet_still_leave_a_suggestion(policy: Policy, items: list[tuple[str, str]]) -> None:
    before = tree(*items)
    answers = suggestions(policy, before, list(broken(policy, before)))
    after = [replace(item, own=answers.get(place, item.own)) for place, item in enumerate(before)]

    assert broken(policy, before)
    assert broken(policy, after) == {}


def test_every_rule_that_a_name_breaks_is_told() -> None:
    policy = Policy(max_length=5, forbidden=["tmp.*"], patterns={"Dense": ".*_fc"}, prefixes={"0": "m_"})

    assert [rule for _, rule in rules_of(violations(policy, tree(("tmp_layer", "Dense"))))] == [
        "grammar",
        "forbidden",
        "pattern",
        "prefix",
    ]


def test_a_pattern_that_nothing_can_meet_has_no_suggestion() -> None:
    found = violations(Policy(patterns={"Dense": r"\s+"}), tree(("fc", "Dense")))

    assert [violation.suggestion for violation in found] == [""]


@pytest.mark.parametrize(
    "pattern",
    [
        r".*_conv\d*",
        r"(head|tail)_\w+",
        r"[a-z]+\d{2}",
        r"stage\d_block\d_.+",
        r"fc",
        r"x|y",
        r"(?P<n>a+)b?",
        r"[^_]+_v\d+",
    ],
)
def test_examples_match_their_pattern(pattern: str) -> None:
    made = list(itertools.islice(examples(pattern, "dense", iter(range(1, 9))), 5))

    assert made
    assert all(re.fullmatch(pattern, each) for each in made)


def test_the_table_has_a_line_a_violation_and_what_to_do() -> None:
    found = violations(Policy(), tree(("head", "M"), ("head/dense_3", "Dense"), ("b", "Dense"), ("b", "Dense")))

    assert text(found, model="classifier", policy=Policy()).splitlines() == [
        "2 names of 'classifier' break the policy 'strict':",
        "  head/dense_3   made up by Keras                     e.g. head/dense1",
        "  b              used twice: first at 2, again at 3   e.g. b_b",
        "Or take these names: nameplate.enforce(model, 'repair') gives a model that has them.",
    ]


def test_a_policy_goes_by_the_name_of_its_mode() -> None:
    assert named_policy("repair") == Policy(mode=PolicyMode("repair")) == Policy(mode="repair")  # type: ignore[arg-type]
    with pytest.raises(NameplateError, match=r"no naming mode 'repare'.*Did you mean 'repair'"):
        Policy(mode="repare")  # type: ignore[arg-type]
    with pytest.raises(NameplateError, match=r"cannot be used:\n  naming.patterns.Dense: '\('.*\n.*forbidden.0"):
        named_policy(Policy(patterns={"Dense": "("}, forbidden=["["]))
    with pytest.raises(NameplateError, match=r"no naming policy 'strickt'.*Did you mean 'strict'"):
        named_policy("strickt")


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        (Policy(patterns={"Dense": "("}), "naming.patterns.Dense"),
        (Policy(forbidden=["["]), "naming.forbidden.0"),
        (Policy(prefixes={"0": "_"}), "naming.prefixes.0"),
        (Policy(max_length=0), "naming.max_length"),
    ],
)
def test_a_policy_says_what_in_it_cannot_be_used(policy: Policy, problem: str) -> None:
    assert [each.partition(":")[0] for each in policy.problems()] == [problem]
