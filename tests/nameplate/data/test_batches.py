from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nameplate.data.batches import Batches


@given(st.integers(1, 200), st.integers(1, 64), st.integers(1, 9))
def test_the_steps_of_an_epoch_hold_every_example_once(size: int, batch: int, replicas: int) -> None:
    batches = Batches(size, batch, replicas)
    assert batches.full * batches.batch + batches.last == size
    assert batches.steps == batches.full + (batches.last > 0)


@given(st.integers(1, 64), st.integers(1, 9))
def test_shares_cover_a_step_in_order_and_each_example_counts_once(examples: int, replicas: int) -> None:
    shares = Batches(1000, 64, replicas).shares(examples)
    counted = [index for share in shares if share.counts for index in range(share.start, share.start + share.length)]
    assert counted == list(range(examples))
    assert max(share.length for share in shares) - min(share.length for share in shares) <= 1


@given(st.integers(1, 8), st.integers(2, 9))
def test_no_share_is_empty(examples: int, replicas: int) -> None:
    assert all(share.length > 0 for share in Batches(100, 64, replicas).shares(examples))
