from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nameplate.naming.rules import Rule, RuleError, compose, from_list, from_map, from_rules, inverse, renamed

TREE = ["stem", "body", "body/conv1", "body/conv2", "body/norm", "head"]
PARENTS = [-1, -1, 1, 1, 1, -1]
ALL = list(range(len(TREE)))


def test_a_list_names_every_layer_in_order() -> None:
    assert from_list(list("abcdef"), TREE, [("layers", ALL)]) == dict(enumerate("abcdef"))


def test_a_list_of_a_wrong_length_says_both_lengths() -> None:
    with pytest.raises(RuleError, match="2 names for 3 layers, 6 layers with those inside"):
        from_list(["a", "b"], TREE, [("layers", [0, 1, 5]), ("layers with those inside", ALL)])


def test_a_map_takes_own_and_qualified_new_names() -> None:
    assert from_map({"body/conv1": "c", "body/norm": "body/n"}, TREE) == {2: "c", 4: "n"}
    assert from_map({"body": "trunk", "body/conv1": "trunk/c"}, TREE) == {1: "trunk", 2: "c"}


def test_a_map_may_name_the_model_itself() -> None:
    assert from_map({"net": "classifier"}, TREE, model="net") == {-1: "classifier"}


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"steam": "x"}, "'steam' matches nothing. Did you mean 'stem'"),
        ({"conv1": "x"}, "Did you mean 'body/conv1'"),
        ({"stem": "body/stem"}, "does not move a layer"),
        ({"stem": 5}, "not a string"),
    ],
)
def test_a_map_that_cannot_be_done_says_why(mapping: dict[str, str], words: str) -> None:
    with pytest.raises(RuleError, match=words):
        from_map(mapping, TREE)


def test_all_that_matches_nothing_is_told_at_once() -> None:
    with pytest.raises(RuleError) as caught:
        from_map({"x": "a", "y": "b"}, TREE)

    assert all(word in str(caught.value) for word in ("'x'", "'y'"))


def test_a_rule_has_groups_and_matches_a_whole_own_name() -> None:
    assert from_rules([Rule(r"conv(\d+)", r"block\1_conv")], TREE, ALL) == {2: "block1_conv", 3: "block2_conv"}
    assert from_rules([Rule(r"(?P<what>norm)", r"batch_\g<what>")], TREE, ALL) == {4: "batch_norm"}


def test_a_rule_with_a_slash_matches_a_whole_qualified_name() -> None:
    assert from_rules([Rule(r"body/conv(\d)", r"body/c\1")], TREE, ALL) == {2: "c1", 3: "c2"}


@pytest.mark.parametrize("pattern", ["con", "onv1", "ody/conv1", "gamma"])
def test_a_rule_never_matches_a_part_of_a_name(pattern: str) -> None:
    with pytest.raises(RuleError, match="matches nothing"):
        from_rules([Rule(pattern, "x")], TREE, ALL)


def test_the_first_of_two_rules_wins_and_one_without_effect_is_an_error() -> None:
    assert from_rules([Rule("conv1", "a"), Rule(r"conv(\d)", r"b\1")], TREE, ALL) == {2: "a", 3: "b2"}
    with pytest.raises(RuleError, match="only what earlier rules rename"):
        from_rules([Rule(r"conv(\d)", r"b\1"), Rule("conv1", "a")], TREE, ALL)


@pytest.mark.parametrize("rule", [Rule("(", "x"), Rule("stem", r"\1")])
def test_a_rule_that_is_no_regular_expression_is_told(rule: Rule) -> None:
    with pytest.raises(RuleError, match="nothing was renamed"):
        from_rules([rule], TREE, ALL)


def test_a_container_takes_what_lies_in_it_along() -> None:
    assert renamed(TREE, {1: "trunk", 2: "c"}, PARENTS)[:4] == ["stem", "trunk", "trunk/c", "trunk/conv2"]


NAMES = ["a", "b", "c", "d", "e"]
PERMUTATIONS = st.permutations(NAMES).map(lambda order: dict(zip(NAMES, order, strict=True)))


@given(PERMUTATIONS)
def test_a_renaming_and_its_inverse_are_the_identity(mapping: dict[str, str]) -> None:
    assert compose(mapping, inverse(mapping)) == {name: name for name in NAMES}


@given(PERMUTATIONS, PERMUTATIONS, PERMUTATIONS)
def test_composition_is_associative(a: dict[str, str], b: dict[str, str], c: dict[str, str]) -> None:
    assert compose(compose(a, b), c) == compose(a, compose(b, c))


@given(PERMUTATIONS)
def test_a_map_renames_all_at_once(mapping: dict[str, str]) -> None:
    changes = from_map(mapping, NAMES)

    assert renamed(NAMES, changes, [-1] * 5) == [mapping[name] for name in NAMES]


def test_two_names_that_became_one_cannot_be_undone() -> None:
    with pytest.raises(RuleError, match="'a' and 'b' both become 'x'"):
        inverse({"a": "x", "b": "x"})
