from __future__ import annotations

import numpy as np
import pytest

from nameplate.naming.rules import RuleError
from nameplate.weights.automatic_names import Owners, paired
from nameplate.weights.plan import Form, match


def forms(**layers: tuple[int, ...]) -> dict[str, Form]:
    """Return a kernel a layer; `_in_` stands for the slash."""
    return {f"{name.replace('_in_', '/')}/kernel": Form(shape, "float32") for name, shape in layers.items()}


CASES = {
    "shifted": (forms(dense=(2, 3), dense_1=(3, 4)), forms(dense_1=(2, 3), dense_2=(3, 4)), 2),
    "numbers, not text": (forms(dense_9=(1,), dense_10=(2,)), forms(dense_1=(1,), dense_2=(2,)), 2),
    "whatever the order in the file": (forms(dense_1=(3, 4), dense=(2, 3)), forms(dense_5=(2, 3), dense_6=(3, 4)), 2),
    "classes apart": (forms(dense=(2,), conv2d=(2,)), forms(conv2d_1=(2,), dense_1=(2,)), 2),
    "nested": (
        forms(functional_in_dense=(1,), functional_in_dense_1=(2,)),
        forms(functional_3_in_dense_7=(1,), functional_3_in_dense_8=(2,)),
        2,
    ),
    "in a container with a name": (forms(body_in_dense=(1,)), forms(body_in_dense_4=(1,)), 1),
    "a part of an automatic layer": (
        forms(multi_head_attention_in_query=(1,), multi_head_attention_in_key=(2,)),
        forms(multi_head_attention_1_in_query=(1,), multi_head_attention_1_in_key=(2,)),
        2,
    ),
    "the same": (forms(dense=(1,)), forms(dense=(1,)), 0),
    "other counts": (forms(dense=(1,), dense_1=(1,)), forms(dense_2=(1,)), 0),
    "other shapes": (forms(dense=(1,), dense_1=(2,)), forms(dense_2=(2,), dense_3=(1,)), 0),
    "one class of two": (forms(dense=(1,), conv2d=(3,)), forms(dense_2=(1,), conv2d_1=(4,)), 1),
    "chosen names": (forms(left=(1,), right=(1,)), forms(up=(1,), down=(1,)), 0),
}


@pytest.mark.parametrize("case", CASES)
def test_automatic_names_are_paired_in_the_order_of_their_numbers(case: str) -> None:
    source, target, count = CASES[case]
    rules = paired(source, target)
    assert len(rules) == count
    plan = match(source, target, rules=rules)
    for line in plan.lines:
        if line.verdict in ("taken", "renamed"):
            assert line.have == line.want
    if count == len(source):
        assert plan.fits


def test_names_that_a_caller_chose_are_not_paired() -> None:
    source, target = forms(dense=(1,), dense_1=(1,)), forms(dense_1=(1,), dense_2=(1,))
    rules = paired(source, target, Owners(given={"dense_1"}))
    assert [(rule.old, rule.new) for rule in rules] == [("dense", "dense_2")]
    assert not paired(forms(my_block=(1,)), forms(my_block_1=(1,)))
    assert paired(forms(my_block=(1,)), forms(my_block_1=(1,)), Owners({"my_block_1": "MyBlock"}))


def test_numbers_for_variables_are_compared_in_order() -> None:
    source = {"m/dense_1/0": Form((2, 3), "float32"), "m/dense_1/1": Form((3,), "float32")}
    target = {"dense/kernel": Form((2, 3), "float32"), "dense/bias": Form((3,), "float32")}
    assert [(rule.old, rule.new) for rule in paired(source, target, outer="m/")] == [("m/dense_1", "dense")]
    assert not paired(dict(reversed(source.items())) | {"m/dense_1/0": Form((3, 2), "float32")}, target, outer="m/")


def test_pairs_are_rules_of_which_none_is_idle() -> None:
    source, target, _ = CASES["shifted"]
    with pytest.raises(RuleError):
        match(forms(other=(1,)), target, rules=paired(source, target))
    assert str(paired(source, target)[0]) == "dense=dense_1, paired by class and order"
    assert np.all([rule.matches(f"{rule.old}/kernel") for rule in paired(source, target)])
