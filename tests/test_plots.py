"""The plots draw what the frames say."""

from __future__ import annotations

import sys

import ir_measures
import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pyterrier as pt
import pytest

from pyterrier_bertcat.errors import InputError, MissingExtraError
from pyterrier_bertcat.plots import effectiveness_per_query, rank_movement

mpl.use("agg")


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def results(**ranked):
    """``q1="a b c"``: the docnos of a query, best first; with rows shuffled, as scores alone decide."""
    rows = [
        (qid, f"what is {qid}?", docno, -float(place), place)
        for qid, docnos in ranked.items()
        for place, docno in enumerate(docnos.split())
    ]
    return pd.DataFrame(rows, columns=["qid", "query", "docno", "score", "rank"]).sample(frac=1, random_state=0)


def moves(axes):
    return {line.get_label(): list(line.get_ydata()) for line in axes.lines if not line.get_label().startswith("_")}


def labels(axes):
    return {text.get_text() for text in axes.texts}


def test_each_line_goes_from_the_old_rank_to_the_new():
    axes = rank_movement(results(q1="a b c"), results(q1="c a b"))
    assert moves(axes) == {"a": [1, 2], "b": [2, 3], "c": [3, 1]}
    assert labels(axes) == {"a  1", "b  2", "c  3", "1  c", "2  a", "3  b"}
    assert axes.get_title() == "q1: what is q1?"


def test_what_is_further_down_is_drawn_below_with_its_rank():
    axes = rank_movement(results(q1="a b c d e f"), results(q1="f a b c e d"), top=2)
    assert moves(axes) == {"a": [1, 2], "b": [2, 3], "f": [3, 1]}
    assert {"f  6", "3  b"} <= labels(axes)


def test_a_document_that_one_ranking_lacks_has_no_rank_there():
    axes = rank_movement(results(q1="a b"), results(q1="c a"))
    assert moves(axes) == {"a": [1, 2], "b": [2, 11], "c": [11, 1]}
    assert {"c  \N{EN DASH}", "\N{EN DASH}  b"} <= labels(axes)


def test_lines_up_and_down_differ_and_relevant_documents_are_thick():
    qrels = pd.DataFrame({"qid": ["q1", "q2", "q1"], "docno": ["a", "b", "c"], "label": [1, 1, 0]})
    axes = rank_movement(results(q1="a b c"), results(q1="b a c"), qrels=qrels)
    lines = {line.get_label(): line for line in axes.lines}
    assert len({lines[docno].get_color() for docno in "abc"}) == 3
    assert lines["a"].get_linewidth() > lines["b"].get_linewidth() == lines["c"].get_linewidth()
    assert {text.get_text() for text in axes.texts if text.get_fontweight() == "bold"} == {"a  1", "2  a"}


def test_equal_scores_are_ranked_as_pyterrier_ranks_them():
    tied = results(q1="a b").assign(score=1.0)
    assert moves(rank_movement(tied, tied)) == {"b": [1, 1], "a": [2, 2]}


def test_a_query_has_to_be_named_where_there_are_several():
    frames = results(q1="a b", q2="c d"), results(q1="b a", q2="d c")
    with pytest.raises(InputError, match=r"choose a query with qid=; the frames hold 2"):
        rank_movement(*frames)
    with pytest.raises(InputError, match="there is no query 'q3'"):
        rank_movement(*frames, qid="q3")
    assert moves(rank_movement(*frames, qid="q2")) == {"c": [1, 2], "d": [2, 1]}


def test_dollars_in_names_are_no_formulas():
    axes = rank_movement(results(q1="$x$ b").assign(query="cost in $ or $?"), results(q1="b $x$").assign(query="$^$"))
    axes.figure.canvas.draw()  # a formula that can't be read would raise


def test_a_frame_without_scores_is_refused():
    with pytest.raises(pt.validate.InputValidationError):
        rank_movement(results(q1="a").drop(columns="score"), results(q1="a"))
    with pytest.raises(InputError, match="top is a whole number of at least 1"):
        rank_movement(results(q1="a"), results(q1="a"), top=0)


def test_bars_are_the_gain_of_each_query_the_largest_first():
    before, after = results(q1="a b c", q2="a b c", q3="a b c"), results(q1="b a c", q2="a b c", q3="c b a")
    qrels = pd.DataFrame({"qid": ["q1", "q2", "q3", "q4"], "docno": ["a", "a", "c", "a"], "label": 1})
    axes = effectiveness_per_query(before, after, qrels, measure=ir_measures.RR @ 10)
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([2 / 3, 0.0, -1 / 2])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["q3", "q2", "q1"]
    assert axes.get_title() == "BM25 0.778, BERT_Cat 0.833: better on 1, worse on 1, the same on 1"
    assert axes.get_ylabel() == "gain in RR@10"


def test_a_query_that_one_frame_lacks_counts_as_zero_there():
    qrels = pd.DataFrame({"qid": ["q1", "q2"], "docno": ["a", "a"], "label": 1})
    axes = effectiveness_per_query(results(q1="a", q2="a"), results(q1="a"), qrels, measure="nDCG@10")
    assert [bar.get_height() for bar in axes.patches] == [0.0, -1.0]


def test_categories_that_do_not_occur_change_nothing():
    qrels = pd.DataFrame({"qid": ["q1", "q2"], "docno": ["a", "a"], "label": 1})
    before, after = (results(q1="a b", q2=docnos).astype({"qid": "category", "docno": "category"}) for docnos in "ab")
    some = after[after["qid"] == "q1"]
    assert moves(rank_movement(some, some)) == {"a": [1, 1], "b": [2, 2]}
    axes = effectiveness_per_query(before, some, qrels.astype({"qid": "category"}))
    assert [bar.get_height() for bar in axes.patches] == [0.0, -1.0]


def test_an_unknown_measure_is_refused():
    qrels = pd.DataFrame({"qid": ["q1"], "docno": ["a"], "label": 1})
    with pytest.raises(InputError, match="got 'nonsense@10': there is no 'nonsense'"):
        effectiveness_per_query(results(q1="a"), results(q1="a"), qrels, measure="nonsense@10")


def test_queries_without_judgments_are_refused():
    qrels = pd.DataFrame({"qid": [1], "docno": ["a"], "label": 1})
    with pytest.raises(InputError, match="none of the 1 queries has judgments"):
        effectiveness_per_query(results(q1="a"), results(q1="a"), qrels)


def test_plots_can_share_a_figure():
    _, (left, right) = plt.subplots(1, 2)
    qrels = pd.DataFrame({"qid": ["q1"], "docno": ["a"], "label": 1})
    assert rank_movement(results(q1="a b"), results(q1="b a"), axes=left) is left
    assert effectiveness_per_query(results(q1="a b"), results(q1="b a"), qrels, axes=right) is right
    assert len(plt.get_fignums()) == 1


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(MissingExtraError, match=r"pyterrier-bertcat\[explain\]"):
        rank_movement(results(q1="a"), results(q1="a"))
