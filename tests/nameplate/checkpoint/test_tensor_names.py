"""A checkpoint stores averaged weights as its weights, and the raw weights as slots."""

from __future__ import annotations

from nameplate.checkpoint.tensor_names import as_stored, as_trained

WEIGHTS = {"stem/kernel": 1, "norm/mean": 2}
SLOTS = {"stem/kernel@average": 3, "stem/kernel@momentum": 4}


def test_averages_take_the_weights_place_and_come_back() -> None:
    weights, slots = as_stored(WEIGHTS, SLOTS, averaged={"stem/kernel"})
    assert weights == {"stem/kernel": 3, "norm/mean": 2}
    assert slots == {"stem/kernel@momentum": 4, "stem/kernel@unaveraged": 1}
    assert as_trained(weights, slots) == (WEIGHTS, SLOTS)


def test_a_checkpoint_from_before_is_what_it_was() -> None:
    assert as_trained(WEIGHTS, SLOTS) == (WEIGHTS, SLOTS)


def test_a_slot_of_that_name_that_averages_no_weight_stays_a_slot() -> None:
    assert as_stored(WEIGHTS, SLOTS, averaged=()) == (WEIGHTS, SLOTS)
