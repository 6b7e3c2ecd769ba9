"""How pairs are cut: the tokenizer's way, the paper's way, and never the query."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.pairs.pair_tokenizer import PairTokenizer
from pyterrier_bertcat.pairs.truncation import Truncation

SPECIAL = 3


def kept(truncation: Truncation, query: int, text: int) -> tuple[int, int]:
    queries, texts = truncation.kept(np.array([query]), np.array([text]), special=SPECIAL)
    return int(queries[0]), int(texts[0])


@pytest.mark.parametrize(
    ("options", "lengths", "expected"),
    [
        ({}, (10, 600), (10, 499)),
        ({"max_query_length": 4}, (10, 600), (4, 505)),
        ({"max_query_length": 4}, (3, 5), (3, 5)),
        ({"max_length": 20}, (40, 50), (8, 9)),
        ({"max_length": 20, "strategy": "only_text"}, (12, 50), (12, 5)),
        ({"max_length": 20, "strategy": "only_text"}, (40, 50), (17, 0)),
        ({"max_length": 20, "strategy": "only_text", "max_query_length": 6}, (40, 50), (6, 11)),
        ({"strategy": "paper"}, (10, 600), (10, 200)),
        ({"strategy": "paper"}, (35, 190), (30, 190)),
        ({"strategy": "paper"}, (35, 600), (30, 197)),
        ({"strategy": "paper", "max_length": 103}, (35, 600), (30, 70)),
    ],
)
def test_what_is_kept(options, lengths, expected):
    assert kept(Truncation(**options), *lengths) == expected


@given(
    st.integers(0, 700),
    st.integers(0, 700),
    st.builds(
        Truncation,
        max_length=st.integers(SPECIAL, 600),
        max_query_length=st.none() | st.integers(1, 600),
        strategy=st.sampled_from(["longest_first", "only_text", "paper"]),
    ),
)
def test_nothing_grows_and_all_fits(query, text, truncation):
    query_kept, text_kept = kept(truncation, query, text)
    assert 0 <= query_kept <= min(query, truncation.max_query_length or query)
    assert 0 <= text_kept <= text
    assert query_kept + text_kept + SPECIAL <= truncation.max_length
    if truncation.strategy == "longest_first" and truncation.max_query_length is None:
        full = min(query + text, truncation.max_length - SPECIAL)
        assert query_kept + text_kept == full


def test_a_pair_in_paper_mode_has_the_first_tokens_of_each(tokenizer):
    query, text = "what is a dog " * 20, "the quick brown fox " * 100
    encoded = PairTokenizer(tokenizer, truncation=Truncation(strategy="paper")).encode([query], [text])
    query_ids, text_ids = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (query, text))
    start, separator = tokenizer.cls_token_id, tokenizer.sep_token_id
    expected = [start, *query_ids[:30], separator, *text_ids[:197], separator]
    assert encoded.batch([0]).input_ids.tolist() == expected
    assert encoded.lost.tolist() == [[80 - 30], [400 - 197]]


def test_a_query_that_stands_alone_is_cut_to_its_length(tokenizer):
    encoded = PairTokenizer(tokenizer, truncation=Truncation(max_query_length=2)).encode(["what is a dog"], [""])
    assert encoded.lengths.tolist() == [4]
    assert encoded.lost.tolist() == [[2], [0]]


@pytest.mark.parametrize(
    "options", [{"max_length": 0}, {"max_length": "512"}, {"max_query_length": 0}, {"strategy": "only_first"}]
)
def test_what_can_not_be_is_refused(options):
    with pytest.raises(InputError):
        Truncation(**options)
