from __future__ import annotations

import math
import re
import sys

import pandas as pd
import pyterrier as pt
import pytest

from pyterrier_bertcat.data.bm25 import Bm25Retriever
from pyterrier_bertcat.errors import InputError, MissingExtraError

DOCUMENTS = [
    {"docno": "tea", "text": "green tea and black tea"},
    {"docno": "coffee", "text": "black coffee"},
    {"docno": "coffee2", "text": "black coffee"},
    {"docno": "water", "text": "clear water in a glass, with a slice of lemon"},
]


def bm25_by_hand(query: str, *, k1: float, b: float) -> dict[str, float]:
    """BM25 from its definition; none of these words are stop words but 'and', 'in', 'a', 'with', 'of'."""
    stop_words = {"and", "in", "a", "with", "of"}
    texts = {d["docno"]: [w for w in re.findall(r"\w+", d["text"]) if w not in stop_words] for d in DOCUMENTS}
    average = sum(map(len, texts.values())) / len(texts)
    scores = {}
    for docno, text in texts.items():
        score = 0.0
        for word in query.split():
            holders = sum(word in other for other in texts.values())
            idf = math.log(1 + (len(texts) - holders + 0.5) / (holders + 0.5))
            count = text.count(word)
            score += idf * count / (count + k1 * (1 - b + b * len(text) / average))
        if score > 0:
            scores[docno] = score
    return scores


@pytest.mark.parametrize(("k1", "b"), [(0.9, 0.4), (1.5, 0.75)])
@pytest.mark.parametrize("query", ["black tea", "coffee", "lemon water black"])
def test_scores_are_bm25s_definition(query, k1, b):
    results = Bm25Retriever(DOCUMENTS, k1=k1, b=b).search(query)
    expected = bm25_by_hand(query, k1=k1, b=b)
    assert dict(zip(results["docno"], results["score"], strict=True)) == pytest.approx(expected, rel=1e-5)


def test_results_come_best_first_with_equal_scores_by_docno_descending_and_other_columns_kept():
    topics = pd.DataFrame({"qid": ["q2", "q1"], "query": ["black", "tea"], "user": ["ann", "bob"]}, index=[5, 5])
    results = Bm25Retriever(DOCUMENTS)(topics)
    assert results.columns.tolist() == ["qid", "query", "user", "docno", "score", "rank"]
    assert results[["qid", "user", "docno", "rank"]].to_numpy().tolist() == [
        ["q2", "ann", "coffee2", 0],
        ["q2", "ann", "coffee", 1],
        ["q2", "ann", "tea", 2],
        ["q1", "bob", "tea", 0],
    ]
    assert results.index.tolist() == [0, 1, 2, 3]


def test_num_results_limits_each_query():
    assert Bm25Retriever(DOCUMENTS, num_results=1).search("black")["docno"].tolist() == ["coffee2"]


@pytest.mark.parametrize("query", ["unheard", "the and of", "", "?!"])
def test_a_query_without_a_known_word_finds_nothing(query):
    assert Bm25Retriever(DOCUMENTS)(pd.DataFrame({"qid": ["1"], "query": [query]})).empty


def test_no_queries_give_an_empty_frame_with_the_same_columns():
    retriever = Bm25Retriever(DOCUMENTS)
    none = retriever(pd.DataFrame({"qid": [], "query": []}))
    some = retriever.search("tea")
    assert none.columns.tolist() == some.columns.tolist()
    assert none["score"].dtype == some["score"].dtype


def test_pyterrier_can_inspect_it():
    retriever = Bm25Retriever(DOCUMENTS)
    assert pt.inspect.transformer_inputs(retriever) == [["qid", "query"]]
    assert pt.inspect.transformer_outputs(retriever, ["qid", "query"]) == ["qid", "query", "docno", "score", "rank"]


def test_nothing_to_index_or_to_find_is_refused():
    with pytest.raises(InputError, match="at least one document"):
        Bm25Retriever([])
    with pytest.raises(InputError, match="num_results is a whole number of at least 1, got 0"):
        Bm25Retriever([{"docno": "d1", "text": "one"}], num_results=0)


def test_a_missing_bm25s_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "bm25s", None)  # as if it were not installed
    with pytest.raises(MissingExtraError, match=r"pyterrier-bertcat\[demo\]"):
        Bm25Retriever(DOCUMENTS)
