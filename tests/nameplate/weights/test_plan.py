from __future__ import annotations

import numpy as np
import pytest

from nameplate.naming.rules import parse_rules
from nameplate.weights.plan import (
    Form,
    Line,
    WeightPlan,
    bridges,
    listing,
    match,
    with_adapted,
    with_casts,
    with_file_names,
    with_left,
)


def forms(**shapes: tuple[int, ...]) -> dict[str, Form]:
    return {name.replace("__", "/"): Form(shape, "float32") for name, shape in shapes.items()}


SOURCE = forms(stem__kernel=(3, 8), stem__bias=(8,), head__kernel=(8, 10), old__gamma=(8,), extra__w=(1,))
TARGET = forms(stem__kernel=(3, 8), stem__bias=(8,), head__kernel=(8, 5), new__gamma=(8,))


def line_of(plan: WeightPlan, name: str) -> Line:
    return next(line for line in plan.lines if line.name == name)


def test_every_name_of_both_sides_is_accounted_for() -> None:
    plan = match(SOURCE, TARGET)
    assert plan.counts() == {"taken": 2, "shape": 1, "missing": 1, "unexpected": 2}
    assert not plan.fits
    assert plan.taken == {"stem/kernel": "stem/kernel", "stem/bias": "stem/bias"}
    head = line_of(plan, "head/kernel")
    assert (head.source, head.verdict) == ("head/kernel", "shape")
    assert head.detail == "float32 8 x 10 in the source, float32 8 x 5 in the target"
    assert {line.source for line in plan.lines if line.verdict == "unexpected"} == {"old/gamma", "extra/w"}


def test_rules_rename_and_drop_with_their_text() -> None:
    rules = parse_rules(["old=new", "extra=", "head="])
    plan = match(SOURCE, {name: form for name, form in TARGET.items() if "head" not in name}, rules=rules)
    assert plan.fits
    assert plan.taken["new/gamma"] == "old/gamma"
    new, extra = line_of(plan, "new/gamma"), line_of(plan, "extra/w")
    assert (new.source, new.verdict, new.rule, new.detail) == ("old/gamma", "renamed", "old=new", "old=new")
    assert (extra.target, extra.verdict, extra.rule, extra.detail) == (None, "dropped", "extra=", "extra=")


def test_swapped_layers_of_one_shape_follow_their_names() -> None:
    plan = match(forms(a__w=(2,), b__w=(2,)), forms(b__w=(2,), a__w=(2,)))
    assert plan.taken == {"b/w": "b/w", "a/w": "a/w"}


def test_another_dtype_does_not_fit() -> None:
    plan = match({"a": Form((2,), "float32")}, {"a": Form((2,), "bfloat16")})
    assert [line.verdict for line in plan.lines] == ["dtype"]


def test_a_missing_name_gets_the_nearest_of_the_unexpected() -> None:
    plan = match(forms(stem_conv__kernel=(1,)), forms(stem_conv1__kernel=(1,)))
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
    assert bridges(source, target) == rules


def test_a_plan_is_one_table_and_one_document() -> None:
    plan = match(SOURCE, TARGET, rules=parse_rules(["old=new"]), label="a.keras")
    assert plan.table().splitlines()[0] == "from a.keras: 2 taken, 1 shape, 1 renamed, 1 unexpected"
    assert str(plan) == plan.table()
    assert [row[:3] for row in plan.rows()][-2:] == [
        ("renamed", "new/gamma", "old/gamma"),
        ("unexpected", "", "extra/w"),
    ]
    document = plan.document()
    assert (document["source"], document["fits"], document["counts"]) == ("a.keras", False, plan.counts())
    assert document["lines"][3] == {
        "target": "new/gamma",
        "source": "old/gamma",
        "verdict": "renamed",
        "detail": "old=new",
        "rule": "old=new",
    }
    assert plan.layers()["stem"] == {"taken": 2}


def test_origins_say_file_name_and_rule() -> None:
    plan = match(SOURCE, TARGET, rules=parse_rules(["old=new"]), label="a.keras")
    assert plan.origins() == {
        "stem/kernel": {"file": "a.keras", "name": "stem/kernel"},
        "stem/bias": {"file": "a.keras", "name": "stem/bias"},
        "new/gamma": {"file": "a.keras", "name": "old/gamma", "rule": "old=new"},
    }


def test_arrays_are_under_the_targets_names_and_read_on_demand() -> None:
    read: list[str] = []

    class Reading(dict[str, np.ndarray]):
        def __getitem__(self, name: str) -> np.ndarray:
            read.append(name)
            return super().__getitem__(name)

    arrays = Reading({"a/w": np.ones(2)})
    plan = match(forms(a__w=(2,)), forms(b__w=(2,)), rules=parse_rules(["a=b"]), arrays=arrays)
    assert read == []
    assert plan.arrays["b/w"] is dict.__getitem__(arrays, "a/w")
    assert read == ["a/w"]


@pytest.mark.parametrize(
    ("have", "want", "patterns", "conversion"),
    [
        ("float16", "float32", None, "float16 to float32"),
        ("int32", "float32", None, ""),
        ("int32", "float32", ["a"], "int32 to float32"),
        ("float16", "float32", ["b"], ""),
    ],
)
def test_types_are_cast_where_that_is_asked_for(
    have: str, want: str, patterns: list[str] | None, conversion: str
) -> None:
    plan = match({"a/w": Form((2,), have)}, {"a/w": Form((2,), want)})
    line = with_casts(plan, patterns).lines[0]
    assert (line.verdict, line.conversion) == ("taken" if conversion else "dtype", conversion)


def test_a_renamed_array_that_is_cast_has_both_in_its_detail() -> None:
    plan = match({"a/w": Form((2,), "float16")}, forms(b__w=(2,)), rules=parse_rules(["a=b"]))
    assert with_casts(plan).lines[0].detail == "a=b; float16 to float32"


def test_what_is_not_chosen_is_left_on_both_sides() -> None:
    plan = with_left(match(SOURCE, TARGET, rules=parse_rules(["extra=stem/more"])), ["stem"], "only")
    assert plan.counts() == {"taken": 2, "left": 3, "unexpected": 1}
    assert line_of(plan, "extra/w").verdict == "unexpected"  # its new name is in what is chosen
    assert line_of(plan, "head/kernel").reason == "not named by `only`"


def test_a_shape_is_adapted_by_a_rule_or_refused_with_the_reason() -> None:
    plan = match(forms(a__kernel=(3, 3, 3, 8)), forms(a__kernel=(3, 3, 1, 8)))
    adapted = with_adapted(plan, {"a": "mean"}, None)
    assert (adapted.fits, adapted.adapted) == (True, {"a/kernel": "mean"})
    assert adapted.lines[0].detail == "mean: (3, 3, 3, 8) to (3, 3, 1, 8)"
    refused = with_adapted(plan, {"a": "classes"}, None)
    assert (refused.fits, refused.lines[0].verdict) == (False, "shape")
    assert "needs the names of the classes" in refused.lines[0].detail


def test_a_plan_gets_the_names_of_the_file() -> None:
    plan = match(forms(a__w=(1,), b__w=(1,)), forms(a__w=(1,), b__w=(1,)))
    named = with_file_names(plan, {"a/w": "net/a/w", "b/w": "b/0"}, notes={"b/w": "rows"}, dropped={"c": "a count"})
    assert [(line.verdict, line.source, line.detail) for line in named.lines] == [
        ("renamed", "net/a/w", ""),
        ("taken", "b/0", "rows"),
        ("dropped", "c", "a count"),
    ]


def test_a_listing_has_a_line_a_problem_up_to_a_limit() -> None:
    problems = match(SOURCE, TARGET).problems
    assert listing(problems)[0].startswith("  shape       head/kernel   float32 8 x 10")
    assert listing(problems, 1)[1:] == ["  ... and 3 more"]


def test_nothing_taken_does_not_fit() -> None:
    assert not match({}, {}).fits
