from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pyterrier_bertcat.pairs.planning import plan_batches, smaller_budget

some_lengths = st.lists(st.integers(1, 600), max_size=200).map(lambda lengths: np.array(lengths, dtype=np.int64))
some_tokens = st.integers(1, 3000)


@given(some_lengths, some_tokens)
def test_every_row_is_in_exactly_one_batch(lengths, batch_tokens):
    batches = plan_batches(lengths, batch_tokens=batch_tokens)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))


@given(some_lengths, some_tokens)
def test_no_batch_exceeds_a_bound_unless_it_is_one_row(lengths, batch_tokens):
    for batch in plan_batches(lengths, batch_tokens=batch_tokens):
        assert len(batch) >= 1
        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= batch_tokens


@given(some_lengths, some_tokens)
def test_no_batch_could_have_taken_the_next_row_too(lengths, batch_tokens):
    batches = plan_batches(lengths, batch_tokens=batch_tokens)
    for batch in batches[:-1]:
        assert (len(batch) + 1) * lengths[batch].max() > batch_tokens


@given(some_lengths, some_tokens)
def test_the_longest_come_first_and_equals_keep_their_order(lengths, batch_tokens):
    batches = plan_batches(lengths, batch_tokens=batch_tokens)
    order = [int(row) for batch in batches for row in batch]
    assert order == sorted(range(len(lengths)), key=lambda row: -lengths[row])


def test_a_row_longer_than_the_budget_is_a_batch_of_its_own():
    batches = plan_batches(np.array([5, 100, 5]), batch_tokens=10)
    assert [batch.tolist() for batch in batches] == [[1], [0, 2]]


def test_no_rows_make_no_batches():
    assert plan_batches(np.empty(0, dtype=np.int64), batch_tokens=10) == []


def test_rows_without_tokens_are_planned_too():
    assert [len(batch) for batch in plan_batches(np.zeros(5, dtype=np.int64), batch_tokens=2)] == [2, 2, 1]


def test_a_budget_is_halved():
    assert smaller_budget(1024, rows=8, length=128) == 512


def test_halving_goes_on_until_the_batch_that_failed_is_split():
    assert smaller_budget(32_768, rows=10, length=100) == 512


def test_a_budget_that_is_small_enough_already_stays():
    assert smaller_budget(400, rows=8, length=100) == 400


@given(some_tokens, st.integers(2, 70), st.integers(0, 600))
def test_halving_always_ends_below_the_batch_that_failed(batch_tokens, rows, length):
    budget = smaller_budget(batch_tokens, rows=rows, length=length)
    assert 1 <= budget <= batch_tokens
    assert max(1, budget // max(1, length)) < rows
