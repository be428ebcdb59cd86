from __future__ import annotations

import pytest

from nameplate.naming import mapping
from nameplate.naming.mapping import MappingError

NAMES = ["a/kernel", "a/bias", "b/kernel", "a_2/kernel", "enc/a/kernel", "enc/a/gamma"]


def renamed(*rules: str, names: list[str] = NAMES) -> dict[str, str]:
    done = mapping.apply(names, mapping.parse(rules))
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
def test_what_rules_do(rules: list[str], changes: dict[str, str]) -> None:
    assert renamed(*rules) == changes


def test_a_slot_goes_with_its_variable() -> None:
    names = ["a/kernel@m", "a/kernel@v", "b/kernel@m", "a_2/kernel@m"]
    assert renamed("a=x", "b=", names=names) == {
        "a/kernel@m": "x/kernel@m",
        "a/kernel@v": "x/kernel@v",
        "b/kernel@m": "",
    }
    assert renamed(r"re:(.*)/kernel=\1/w", names=names[:1]) == {"a/kernel@m": "a/w@m"}


def test_a_word_inside_a_name_is_left_alone() -> None:
    assert renamed("gamma=scale", names=["my_gamma/gamma", "gamma/w"]) == {"gamma/w": "scale/w"}


def test_the_result_is_not_renamed_again() -> None:
    assert renamed("a=b/a", "b=c") == {"a/kernel": "b/a/kernel", "a/bias": "b/a/bias", "b/kernel": "c/kernel"}


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
def test_rules_that_cannot_be_applied_are_all_told(rules: list[str], messages: list[str]) -> None:
    with pytest.raises(MappingError) as caught:
        renamed(*rules)
    assert all(message in str(caught.value) for message in messages)
