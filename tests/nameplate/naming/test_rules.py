from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nameplate.naming.rules import (
    Rule,
    RuleError,
    apply_rules,
    from_list,
    from_map,
    from_rules,
    parse_rules,
    renamed,
)

TREE = ["stem", "body", "body/conv1", "body/conv2", "body/norm", "head"]
PARENTS = [-1, -1, 1, 1, 1, -1]
ALL = list(range(len(TREE)))


def regular(pattern: str, replacement: str) -> Rule:
    return Rule(pattern, replacement, regular=True)


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


def test_all_that_matches_nothing_is_reported_at_once() -> None:
    with pytest.raises(RuleError) as caught:
        from_map({"x": "a", "y": "b"}, TREE)

    assert all(word in str(caught.value) for word in ("'x'", "'y'"))


def test_a_rule_has_groups_and_matches_a_whole_own_name() -> None:
    assert from_rules([regular(r"conv(\d+)", r"block\1_conv")], TREE, ALL) == {2: "block1_conv", 3: "block2_conv"}
    assert from_rules([regular(r"(?P<what>norm)", r"batch_\g<what>")], TREE, ALL) == {4: "batch_norm"}


def test_a_rule_with_a_slash_matches_a_whole_qualified_name() -> None:
    assert from_rules([regular(r"body/conv(\d)", r"body/c\1")], TREE, ALL) == {2: "c1", 3: "c2"}


@pytest.mark.parametrize("pattern", ["con", "onv1", "ody/conv1", "gamma"])
def test_a_rule_never_matches_a_part_of_a_name(pattern: str) -> None:
    with pytest.raises(RuleError, match="matches nothing"):
        from_rules([regular(pattern, "x")], TREE, ALL)


def test_the_first_of_two_rules_wins_and_one_without_effect_is_an_error() -> None:
    assert from_rules([regular("conv1", "a"), regular(r"conv(\d)", r"b\1")], TREE, ALL) == {2: "a", 3: "b2"}
    with pytest.raises(RuleError, match="only what earlier rules take"):
        from_rules([regular(r"conv(\d)", r"b\1"), regular("conv1", "a")], TREE, ALL)


@pytest.mark.parametrize("rule", [regular("(", "x"), regular("stem", r"\1")])
def test_an_invalid_regular_expression_is_reported(rule: Rule) -> None:
    with pytest.raises(RuleError, match="nothing was renamed"):
        from_rules([rule], TREE, ALL)


def test_a_container_takes_what_lies_in_it_along() -> None:
    assert renamed(TREE, {1: "trunk", 2: "c"}, PARENTS)[:4] == ["stem", "trunk", "trunk/c", "trunk/conv2"]


NAMES = ["a", "b", "c", "d", "e"]
PERMUTATIONS = st.permutations(NAMES).map(lambda order: dict(zip(NAMES, order, strict=True)))


@given(PERMUTATIONS)
def test_a_map_renames_all_at_once(mapping: dict[str, str]) -> None:
    changes = from_map(mapping, NAMES)

    assert renamed(NAMES, changes, [-1] * 5) == [mapping[name] for name in NAMES]


VARIABLES = ["a/kernel", "a/bias", "b/kernel", "a_2/kernel", "enc/a/kernel", "enc/a/gamma"]


def after(*rules: str, names: list[str] = VARIABLES) -> dict[str, str]:
    done = apply_rules(names, parse_rules(rules))
    return {old: new for old, new in done.names.items() if old != new} | dict.fromkeys(done.dropped, "")


@pytest.mark.parametrize(
    ("rules", "changes"),
    [
        ([], {}),
        (["a=x"], {"a/kernel": "x/kernel", "a/bias": "x/bias"}),
        (["a/kernel=a/w"], {"a/kernel": "a/w"}),
        (["enc=backbone"], {"enc/a/kernel": "backbone/a/kernel", "enc/a/gamma": "backbone/a/gamma"}),
        (["enc/a=c"], {"enc/a/kernel": "c/kernel", "enc/a/gamma": "c/gamma"}),
        (["a/kernel=b/kernel", "b/kernel=a/kernel"], {"a/kernel": "b/kernel", "b/kernel": "a/kernel"}),
        (
            ["a=b", "b=a_2", "a_2=a"],
            {"a/kernel": "b/kernel", "a/bias": "b/bias", "b/kernel": "a_2/kernel", "a_2/kernel": "a/kernel"},
        ),
        (["b="], {"b/kernel": ""}),
        (["enc/a/gamma=", "enc=e"], {"enc/a/gamma": "", "enc/a/kernel": "e/a/kernel"}),
        ([r"re:(.*)/gamma=\1/scale"], {"enc/a/gamma": "enc/a/scale"}),
        ([r"re:a(_2)?/kernel=layer\1/kernel"], {"a/kernel": "layer/kernel", "a_2/kernel": "layer_2/kernel"}),
        (["re:.*bias="], {"a/bias": ""}),
        ([r"re:a(?=/)(.*)=x\1"], {"a/kernel": "x/kernel", "a/bias": "x/bias"}),
        ([r"re:(a|a_2)/kernel=first_\1/kernel"], {"a/kernel": "first_a/kernel", "a_2/kernel": "first_a_2/kernel"}),
    ],
)
def test_what_rules_do_to_variables(rules: list[str], changes: dict[str, str]) -> None:
    assert after(*rules) == changes


def test_a_slot_goes_with_its_variable() -> None:
    names = ["a/kernel@m", "a/kernel@v", "b/kernel@m", "a_2/kernel@m"]
    assert after("a=x", "b=", names=names) == {
        "a/kernel@m": "x/kernel@m",
        "a/kernel@v": "x/kernel@v",
        "b/kernel@m": "",
    }
    assert after(r"re:(.*)/kernel=\1/w", names=names[:1]) == {"a/kernel@m": "a/w@m"}


def test_a_word_inside_a_name_is_left_alone() -> None:
    assert after("gamma=scale", names=["my_gamma/gamma", "gamma/w"]) == {"gamma/w": "scale/w"}


def test_the_result_is_not_renamed_again() -> None:
    assert after("a=b/a", "b=c") == {"a/kernel": "b/a/kernel", "a/bias": "b/a/bias", "b/kernel": "c/kernel"}


@pytest.mark.parametrize(
    ("rules", "messages"),
    [
        (
            ["enk=x", "a/kernl=y"],
            ["'enk=x' matches nothing. Did you mean 'enc'", "'a/kernl=y' matches nothing. Did you"],
        ),
        (["re:conv.*=x"], ["'re:conv.*=x' matches nothing"]),
        (["a=x", "a/kernel=y"], ["'a/kernel=y' matches only what earlier rules take"]),
        (["a=x", "re:a/.*=y"], ["'re:a/.*=y' matches only what earlier rules take"]),
        (["a=b"], ["'b/kernel' would be the name of 'a/kernel' and of 'b/kernel'"]),
        (["re:.*/kernel=w"], ["'w' would be the name of 'a/kernel' and of 'b/kernel'"]),
        ([r"re:(.*)/gamma=\2"], ["invalid group reference"]),
        (["a"], ["'a': a rule is OLD=NEW"]),
        (["=a"], ["'=a': a rule is OLD=NEW"]),
        (["re:(=a", "b"], ["'re:(=a': ", "'b': a rule"]),
    ],
)
def test_rules_that_cannot_be_applied_are_all_reported(rules: list[str], messages: list[str]) -> None:
    with pytest.raises(RuleError) as caught:
        after(*rules)
    assert all(message in str(caught.value) for message in messages)


def test_a_rule_without_an_expression_is_for_the_layer_of_that_name() -> None:
    assert from_rules([Rule("body", "trunk"), Rule("body/conv1", "trunk/c")], TREE, ALL) == {1: "trunk", 2: "c"}
    with pytest.raises(RuleError, match="Did you mean 'body/conv1'"):
        from_rules([Rule("conv1", "c")], TREE, ALL)


@pytest.mark.parametrize("rules", [{"a": "x", "b/kernel": ""}, ["a=x", "b/kernel="], ["/a/=x/", "b/kernel="]])
def test_a_map_and_texts_are_the_same_rules(rules: dict[str, str] | list[str]) -> None:
    done = apply_rules(VARIABLES, parse_rules(rules))
    assert (done.names["a/bias"], done.dropped) == ("x/bias", ("b/kernel",))


@pytest.mark.parametrize("rules", [5, {"a": 5}, {5: "a"}, [("a", "b")]])
def test_what_is_not_a_rule_is_refused(rules: Any) -> None:
    with pytest.raises(RuleError):
        parse_rules(rules)
