"""What is taken for queries and texts, what is refused, and which pairs are the same."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.pairs.strings import DistinctPairs, checked_pairs
from pyterrier_bertcat.scoring.pair_scorer import PairScorer


@pytest.mark.parametrize("sequence", [list, tuple, np.array, pd.Series, pd.array, lambda v: np.array(v, dtype=object)])
def test_any_sequence_of_strings_will_do(sequence):
    queries, texts = checked_pairs(sequence(["a query", "another"]), sequence(["a text", ""]))
    assert (queries, texts) == (["a query", "another"], ["a text", ""])
    assert {type(string) for string in (*queries, *texts)} == {str}


@pytest.mark.parametrize(
    ("value", "kind"), [(None, "NoneType"), (float("nan"), "float"), (pd.NA, "NAType"), (3, "int"), (b"x", "bytes")]
)
def test_a_value_that_is_no_string_is_named_by_position_and_type(value, kind):
    with pytest.raises(InputError, match=rf"texts\[1\] is .* of type {kind}, expected a string"):
        checked_pairs(["a", "b"], ["x", value])
    with pytest.raises(InputError, match=rf"queries\[0\] is .* of type {kind}"):
        checked_pairs([value, "b"], ["x", "y"])


def test_a_lone_surrogate_is_named_by_position():
    with pytest.raises(InputError, match=r"texts\[1\] has the lone surrogate '\\ud800' at character 2"):
        checked_pairs(["a", "b"], ["x", "ab\ud800"])


def test_a_single_string_is_not_a_list_of_its_letters():
    with pytest.raises(InputError, match="got one str: put it in a list"):
        checked_pairs("ab", ["x", "y"])


def test_unequal_numbers_of_queries_and_texts_are_refused():
    with pytest.raises(InputError, match="got 2 queries and 1 texts"):
        checked_pairs(["a", "b"], ["x"])


def test_the_scorer_checks_what_it_is_called_with(tiny_checkpoint):
    scorer = PairScorer(tiny_checkpoint, device="cpu", verbose=False)
    for queries, texts in ((["a"], [None]), (["a\ud800"], ["b"]), ("a", "b"), (["a"], [])):
        with pytest.raises(InputError):
            scorer.score(queries, texts)
    assert scorer.score(pd.Series(["a"]), np.array(["b"])).shape == (1,)


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "ab", "a\0b", ""]), st.sampled_from(["x", "", "a", "a\0", "\0b"])),
        max_size=30,
    )
)
def test_distinct_pairs_are_found_and_those_of_one_text_stand_together(rows):
    pairs = DistinctPairs.among([query for query, _ in rows], [text for _, text in rows])
    distinct = [rows[row] for row in pairs.row]
    assert len(pairs) == len(distinct)
    assert sorted(distinct) == sorted(set(rows))
    assert [distinct[number] for number in pairs.of_row] == rows
    assert [rows.index(pair) for pair in distinct] == pairs.row.tolist()
    texts = [text for _, text in rows]
    assert [text for text, _ in itertools.groupby(text for _, text in distinct)] == list(dict.fromkeys(texts))
