from __future__ import annotations

import pytest

from nameplate.naming.rules import parse_rules
from nameplate.weights import plan as matching
from nameplate.weights.plan import Form, Line, WeightPlan


def forms(**shapes: tuple[int, ...]) -> dict[str, Form]:
    return {name.replace("__", "/"): Form(shape, "float32") for name, shape in shapes.items()}


SOURCE = forms(stem__kernel=(3, 8), stem__bias=(8,), head__kernel=(8, 10), old__gamma=(8,), extra__w=(1,))
TARGET = forms(stem__kernel=(3, 8), stem__bias=(8,), head__kernel=(8, 5), new__gamma=(8,))


def line_of(plan: WeightPlan, name: str) -> Line:
    return next(line for line in plan.lines if line.name == name)


def test_every_name_of_both_sides_is_accounted_for() -> None:
    plan = matching.match(SOURCE, TARGET)
    assert plan.counts() == {"taken": 2, "shape": 1, "missing": 1, "unexpected": 2}
    assert not plan.fits
    assert plan.taken == {"stem/kernel": "stem/kernel", "stem/bias": "stem/bias"}
    head = line_of(plan, "head/kernel")
    assert (head.source, head.verdict) == ("head/kernel", "shape")
    assert head.detail == "float32 8 x 10 in the source, float32 8 x 5 in the target"
    assert {line.source for line in plan.lines if line.verdict == "unexpected"} == {"old/gamma", "extra/w"}


def test_rules_rename_and_drop_with_their_text() -> None:
    rules = parse_rules(["old=new", "extra=", "head="])
    plan = matching.match(SOURCE, {name: form for name, form in TARGET.items() if "head" not in name}, rules=rules)
    assert plan.fits
    assert plan.taken["new/gamma"] == "old/gamma"
    new, extra = line_of(plan, "new/gamma"), line_of(plan, "extra/w")
    assert (new.source, new.verdict, new.rule, new.detail) == ("old/gamma", "renamed", "old=new", "old=new")
    assert (extra.target, extra.verdict, extra.rule, extra.detail) == (None, "dropped", "extra=", "extra=")


def test_swapped_layers_of_one_shape_follow_their_names() -> None:
    plan = matching.match(forms(a__w=(2,), b__w=(2,)), forms(b__w=(2,), a__w=(2,)))
    assert plan.taken == {"b/w": "b/w", "a/w": "a/w"}


def test_another_dtype_is_no_fit() -> None:
    plan = matching.match({"a": Form((2,), "float32")}, {"a": Form((2,), "bfloat16")})
    assert [line.verdict for line in plan.lines] == ["dtype"]


def test_a_missing_name_gets_the_nearest_of_the_unexpected() -> None:
    plan = matching.match(forms(stem_conv__kernel=(1,)), forms(stem_conv1__kernel=(1,)))
    assert all("Did you mean" in line.detail for line in plan.lines)


@pytest.mark.parametrize(
    ("source", "target", "rules"),
    [
        (SOURCE, TARGET, ["old=new"]),
        (forms(a__w=(1,), b__w=(1,)), forms(c__w=(1,)), []),
        (forms(a__w=(1,), b__w=(2,)), forms(c__w=(1,), d__w=(2,)), ["a=c", "b=d"]),
        (forms(enc__a__w=(1,)), forms(backbone__a__w=(1,)), ["enc/a=backbone/a"]),
        (SOURCE, SOURCE, []),
    ],
)
def test_the_obvious_bridge_is_offered_and_no_other(
    source: dict[str, Form], target: dict[str, Form], rules: list[str]
) -> None:
    assert matching.bridges(source, target) == rules
