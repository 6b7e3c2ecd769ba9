"""Pairs by content: what shares a hash, and what a record's check sees."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyterrier_bertcat.store.pair_hashes import HashedPairs, are_right, cut_of, records_of, salts_of

ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()))  # lone surrogates too


@given(st.lists(st.tuples(ANY_TEXT, ANY_TEXT)))
def test_hashes_are_blake2b_of_the_whole_string(rows):
    queries, texts = [query for query, _ in rows], [text for _, text in rows]
    pairs = HashedPairs.of(queries, texts)
    assert len(pairs) == len(rows)
    assert [pairs.queries[number] for number in pairs.query] == [blake2b_16(query) for query in queries]
    assert [text.tobytes() for text in pairs.texts] == [blake2b_16(text) for text in texts]
    assert len(pairs.queries) == len(set(queries))


def blake2b_16(string: str) -> bytes:
    return hashlib.blake2b(string.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def test_strings_that_are_made_while_reading_do_not_take_each_others_hash():
    """Objects are told apart by their id, which a string that is gone leaves to the next."""

    class Fresh(list):
        def __iter__(self):
            return (f"text {number}" for number in range(len(self)))

    pairs = HashedPairs.of(["q"] * 100, Fresh([""] * 100))
    assert [text.tobytes() for text in pairs.texts] == [blake2b_16(f"text {number}") for number in range(100)]


def test_a_series_with_any_index_is_read_by_position():
    texts = pd.Series(["b", "a", "b"], index=[2, 2, 0])
    assert HashedPairs.of(["q"] * 3, texts).texts.tolist() == HashedPairs.of(["q"] * 3, ["b", "a", "b"]).texts.tolist()


def test_some_of_the_pairs_keep_their_queries():
    pairs = HashedPairs.of(["a", "b", "c"], ["x", "y", "z"])[np.array([2, 0])]
    assert [pairs.queries[number] for number in pairs.query] == [blake2b_16("c"), blake2b_16("a")]
    assert [text.tobytes() for text in pairs.texts] == [blake2b_16("z"), blake2b_16("x")]


def one_record(settings: str = "{}", query: str = "query", score: float = 1.5, cut: tuple[bool, bool] = (False, True)):
    pairs = HashedPairs.of([query], ["text"])
    salts = salts_of(pairs.queries, settings)
    return records_of(pairs.texts, np.array([score], np.float32), np.array(cut)[:, None], salts), salts


def test_a_record_is_right_as_it_was_made():
    for cut in ((False, False), (False, True), (True, False), (True, True)):
        records, salts = one_record(cut=cut)
        assert records.dtype.itemsize == 24
        assert are_right(records, salts).all()
        assert cut_of(records)[:, 0].tolist() == list(cut)


@pytest.mark.parametrize("bit", range(24 * 8))
def test_a_record_with_any_one_bit_changed_is_not_right(bit):
    records, salts = one_record()
    damaged = bytearray(records.tobytes())
    damaged[bit // 8] ^= 1 << bit % 8
    assert not are_right(np.frombuffer(bytes(damaged), records.dtype), salts).any()


def test_a_record_is_not_right_for_another_query_or_other_settings():
    records, _ = one_record()
    for other in (one_record(settings="{ }"), one_record(query="query ")):
        assert not are_right(records, other[1]).any()
        assert are_right(other[0], other[1]).all()


def test_a_record_of_zeros_is_not_right():
    records, salts = one_record()
    assert not are_right(np.zeros_like(records), salts).any()


def test_a_score_that_is_not_finite_is_not_right():
    for score in (float("nan"), float("inf")):
        assert not are_right(*one_record(score=score)).any()


def test_the_files_format_does_not_change_unseen():
    """A changed hash or check would make every store that exists worthless."""
    records, salts = one_record()
    assert records.tobytes().hex() == "d732c6be860e019351f99173fa6ae6120000c03fd6b4f276"
    assert salts.tolist() == [18114664284246257778]
