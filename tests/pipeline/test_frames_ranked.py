"""How scores become an ordered, ranked frame."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers.frames import frame, scores_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from pyterrier_bertcat.pipeline.frames import ranked


def test_rows_are_grouped_by_first_appearance_and_ordered_best_first():
    inp = frame(qid=["9", "1", "9"], score=[3.0, 2.0, 1.0], rank=[0, 0, 1], url=["u1", "u2", "u3"])
    expected = pd.DataFrame(
        {
            "qid": ["9", "9", "1"],
            "query": ["two", "one", "one"],
            "docno": ["c", "a", "b"],
            "text": ["gamma", "alpha", "beta"],
            "url": ["u3", "u1", "u2"],
            "score": scores_of(5.0, 0.25, -1.0),
            "rank": [0, 1, 0],
        }
    )
    assert_frame_equal(ranked(inp, scores_of(0.25, -1.0, 5.0)), expected)


def test_equal_scores_are_ordered_by_docno_descending_as_text():
    inp = frame(qid=["1"] * 3, docno=["9", "10", "a"])
    assert ranked(inp, scores_of(1, 1, 1))["docno"].tolist() == ["a", "9", "10"]


def test_numeric_docnos_are_ordered_as_text_too():
    inp = frame(qid=["1"] * 3, docno=[9, 10, 100])
    out = ranked(inp, scores_of(1, 1, 1))
    assert out["docno"].tolist() == [9, 100, 10]
    assert out["rank"].tolist() == [0, 1, 2]


def test_docnos_are_compared_only_within_a_query_and_a_score():
    class Docno(str):
        asked = 0

        def __str__(self):
            Docno.asked += 1
            return str.__str__(self)

    docnos = pd.Series([Docno(docno) for docno in "abcdefgh"], dtype=object)
    inp = pd.DataFrame({"qid": ["1", "2"] * 4, "query": "q", "docno": docnos, "text": "t"})
    out = ranked(inp, scores_of(5, 5, 4, 4, 4, 3, 1, 2))
    assert out["docno"].tolist() == ["a", "e", "c", "g", "b", "d", "f", "h"]
    assert Docno.asked == 2


def test_zeros_of_either_sign_are_equal_scores():
    out = ranked(frame(qid=["1"] * 3), scores_of(0.0, -0.0, 0.0))
    assert out["docno"].tolist() == ["c", "b", "a"]
    assert np.signbit(out["score"]).tolist() == [False, True, False]


def test_rows_of_the_same_query_and_docno_keep_their_order():
    inp = frame(qid=["1"] * 3, docno=["a"] * 3)
    assert ranked(inp, scores_of(1, 1, 1))["text"].tolist() == ["alpha", "beta", "gamma"]


@pytest.mark.parametrize(
    "columns", [["qid", "query", "docno", "text"], ["rank", "docno", "x", "text", "score", "query", "qid"]]
)
def test_an_empty_frame_gets_the_same_columns_in_the_same_order_with_types(columns):
    full = ranked(frame(score=0.0, rank=0, x=1)[columns], scores_of(1, 2, 3))
    for empty in (pd.DataFrame(columns=columns), frame(score=0.0, rank=0, x=1)[columns].iloc[:0]):
        out = ranked(empty, scores_of())
        assert list(out.columns) == list(full.columns)
        assert out.dtypes[["score", "rank"]].tolist() == full.dtypes[["score", "rank"]].tolist() == ["float32", "int64"]
        assert out.index.equals(pd.RangeIndex(0))


def test_one_score_per_row_is_expected():
    with pytest.raises(ValueError, match="3 rows"):
        ranked(frame(), scores_of(1, 2))


INDEXES = (
    lambda n: pd.RangeIndex(n),
    lambda n: pd.Index([7] * n),
    lambda n: pd.Index([f"row {n - i}" for i in range(n)], name="docno"),
    lambda n: pd.Index([None] * n, name="qid"),
    lambda n: (
        pd.MultiIndex.from_tuples([(i % 2, "x") for i in range(n)], names=["score", None])
        if n
        else pd.MultiIndex.from_arrays([[], []], names=["score", None])
    ),
)


@st.composite
def scored_frames(draw):
    """A frame with repeated rows and ties, extra columns in any order and any index; its scores; a permutation."""
    qids = draw(st.sampled_from([["q1", "q2", "10"], [1, 2, 3]]))
    rows = draw(
        st.lists(
            st.tuples(
                st.sampled_from(qids), st.sampled_from(["d1", "d2", "d10", "ü"]), st.sampled_from([-1.5, 0.0, 2.25])
            ),
            max_size=12,
        )
    )
    table = pd.DataFrame(rows, columns=["qid", "docno", "given"])
    table["query"] = [f"query {qid}" for qid in table["qid"]]
    table["text"] = [f"text {docno}" for docno in table["docno"]]
    for extra in draw(st.sets(st.sampled_from(["score", "rank", "url", "features", 7]))):
        table[extra] = [np.arange(2)] * len(table) if extra == "features" else np.arange(len(table))
    columns = draw(st.permutations(list(table.columns)))
    table = table[columns].set_axis(draw(st.sampled_from(INDEXES))(len(table)))
    scores = np.array([given for _, _, given in rows], dtype=np.float32)
    return table, scores, np.array(draw(st.permutations(range(len(rows)))), dtype=np.int64)


def pair_scores(out):
    return sorted(zip(out["qid"], out["docno"], out["given"], out["score"].tolist(), strict=True), key=repr)


@settings(max_examples=60)
@given(scored_frames())
def test_whatever_the_frame_rows_keep_their_scores_and_ranks_follow_them(case):
    inp, scores, permutation = case
    before = inp.copy(deep=True)
    out = ranked(inp, scores)

    assert_frame_equal(inp, before)  # the caller's frame is as it was
    assert out["given"].astype("float32").tolist() == out["score"].tolist()  # every row has its own score
    assert list(out.columns) == [name for name in inp.columns if name not in ("score", "rank")] + ["score", "rank"]
    assert out.index.equals(pd.RangeIndex(len(inp)))
    assert out["qid"].drop_duplicates().tolist() == inp["qid"].drop_duplicates().tolist()
    for _, group in out.groupby("qid", sort=False):
        assert group["rank"].tolist() == list(range(len(group)))
        assert group["score"].is_monotonic_decreasing
        assert np.ptp(group.index.to_numpy()) == len(group) - 1  # a query's rows stand together

    shuffled = ranked(inp.iloc[permutation], scores[permutation])
    assert pair_scores(shuffled) == pair_scores(out)
    for qid, group in out.groupby("qid", sort=False):
        again = shuffled[shuffled["qid"] == qid]
        assert (
            again[["docno", "score", "rank"]].to_numpy().tolist()
            == group[["docno", "score", "rank"]].to_numpy().tolist()
        )


DOCNO_KINDS = {
    "object": ["9", 9, "10", 10, 2.5, True, None, "", "ü", "z", "Z"],
    "str": ["9", "10", "", "ü", "z", "Z"],
    "string": ["9", "10", "", "ü", "z", "Z"],
    "category": ["9", "10", "", "ü", "z", "Z"],
    "int64": [9, 10, 100, -1, 0],
    "float64": [9.0, 10.5, 1e20, float("nan")],
}


@st.composite
def tied_frames(draw):
    """A frame whose rows often share query, score and docno, interleaved queries, any index; and its scores."""
    kind = draw(st.sampled_from(sorted(DOCNO_KINDS)))
    rows = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["q2", "q1", "10"]),
                st.sampled_from(DOCNO_KINDS[kind]),
                st.sampled_from([1.0, 0.0, -0.0, -2.5]),
            ),
            max_size=40,
        )
    )
    qids, docnos, scores = zip(*rows, strict=True) if rows else ((), (), ())
    table = pd.DataFrame(
        {
            "qid": pd.Series(qids, dtype=draw(st.sampled_from(["object", "str", "category"]))),
            "docno": pd.Series(docnos, dtype=kind),
            "given": np.arange(len(rows)),
        }
    )
    return table.set_axis(draw(st.sampled_from(INDEXES))(len(rows))), np.array(scores, dtype=np.float32)


def naive_order(inp, scores):
    """The rows by Python's own stable sorting: docnos as text from the last, then the best score, then the query."""
    qids, docnos = inp["qid"].tolist(), inp["docno"].astype(object).tolist()
    rows = sorted(range(len(inp)), key=lambda row: str(docnos[row]), reverse=True)
    return sorted(rows, key=lambda row: (qids.index(qids[row]), -scores[row]))


@settings(max_examples=200)
@given(tied_frames())
def test_rows_are_ordered_as_by_sorting_every_one_naively(case):
    inp, scores = case
    before = inp.copy(deep=True)
    order = naive_order(inp, scores)
    out = ranked(inp, scores)
    assert_frame_equal(inp, before)
    assert out["given"].tolist() == order
    assert out["score"].to_numpy().tobytes() == scores[order].tobytes()
    assert out.dtypes[["qid", "docno"]].equals(inp.dtypes[["qid", "docno"]])
