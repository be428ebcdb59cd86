"""Who a job is: the same settings that decide a result, the same name."""

from __future__ import annotations

from typing import Any

import pytest

from trainer.ledger.record import differences, identity, parted, settings_of, varying

TREE: dict[str, Any] = {"run": "a", "seed": 1, "fit": {"epochs": 3, "xla": False}, "log": {"every_steps": 5}}


def named(tree: dict[str, Any], **usual: Any) -> str:
    return identity(parted(settings_of(tree), usual={key.replace("__", "."): each for key, each in usual.items()})[0])


@pytest.mark.parametrize(
    "other",
    [
        {"run": "b"},
        {"log": {"every_steps": 6}},
        {"fit": {"xla": True, "epochs": 3}},
        {"strategy": {"replicas": 4}},
        {"sweep": {"mode": "warm"}},
        {"checkpoint": {"keep_last": 9}},
    ],
)
def test_what_decides_no_result_does_not_rename_a_job(other: dict[str, Any]) -> None:
    assert named(TREE | other) == named(TREE)


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 2},
        {"fit": {"epochs": 4, "xla": False}},
        {"checkpoint": {"monitor": "val_loss"}},
        {"strategy": {"sync_batch_norm": False}},
    ],
)
def test_what_decides_a_result_does(other: dict[str, Any]) -> None:
    assert named(TREE | other) != named(TREE)


def test_a_setting_that_a_later_version_adds_renames_no_job_that_leaves_it_as_usual() -> None:
    later = TREE | {"fit": {"epochs": 3, "xla": False, "momentum": 0.5}}
    assert named(later, fit__momentum=0.5) == named(TREE)
    assert named(later, fit__momentum=0.9) != named(TREE)


def test_the_order_of_settings_does_not_count() -> None:
    assert identity({"a": 1, "b": [1, 2]}) == identity({"b": [1, 2], "a": 1})


def test_a_key_that_decides_nothing_can_tell_jobs_apart_where_that_is_asked_for() -> None:
    assert settings_of({"strategy": {"replicas": 4}}, distinct=["strategy.replicas"]) == {"strategy.replicas": 4}


def test_settings_that_differ_are_found_also_where_one_job_has_none() -> None:
    assert varying([{"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 2, "b": 1, "c": 0}]) == ["a", "c"]


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ([{"a": 1, "seed": 1}], [{"a": 2, "seed": 1}], {"a": (1, 2)}),
        ([{"a": 1}, {"a": 2}], [{"a": 3}], {}),
        ([{"a": 1}], [{"a": 2}, {"a": 3}], {}),
        ([{"seed": 1}], [{"seed": 2}], {}),
        ([{"a": 1, "b": 1}], [{"a": 1}], {}),
    ],
    ids=["fixed on both sides", "a grid before", "a grid now", "the seed", "an option's own setting"],
)
def test_jobs_can_be_compared_unless_a_fixed_setting_changed(old: Any, new: Any, found: dict[str, Any]) -> None:
    assert differences(old, new) == found
