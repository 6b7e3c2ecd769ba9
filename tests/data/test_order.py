"""One order of a ranking everywhere: by score, then docno descending as text, as ``pt.Experiment`` has it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyterrier as pt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyterrier_bertcat import plots
from pyterrier_bertcat.data.bm25 import Bm25Retriever
from pyterrier_bertcat.data.order import best_first, ranks, values_of
from pyterrier_bertcat.data.runs import read_run
from pyterrier_bertcat.pipeline.frames import ranked
from pyterrier_bertcat.training.sampling import judged_candidates

rows = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 12), st.sampled_from([0.5, 1.0, 2.0])),
    unique_by=lambda row: row[:2],
    min_size=1,
)


@given(rows)
def test_rows_are_sorted_by_score_and_equal_scores_by_docno_as_text(rows):
    frame = pd.DataFrame(rows, columns=["qid", "docno", "score"])
    queries = pd.factorize(frame["qid"])[0]
    order = best_first(queries, frame["docno"].to_numpy(dtype=object), frame["score"].to_numpy())
    expected = frame.assign(query=queries, text=frame["docno"].astype(str)).sort_values(
        ["query", "score", "text"], ascending=[True, False, False]
    )
    assert order.tolist() == expected.index.tolist()
    assert ranks(queries[order]).tolist() == expected.groupby("query").cumcount().tolist()


@given(rows)
def test_a_cutoff_keeps_what_the_evaluation_counts(rows):
    frame = pd.DataFrame(rows, columns=["qid", "docno", "score"])
    frame["docno"] = frame["docno"].astype(str)
    first = ranked(frame, frame["score"].to_numpy(dtype=np.float32)).query("rank == 0")
    for qid, docno in zip(first["qid"], first["docno"], strict=True):
        qrels = pd.DataFrame({"qid": [qid], "docno": [docno], "label": [1]})
        assert pt.Evaluate(frame[frame["qid"] == qid], qrels, metrics=["P.1"])["P.1"] == 1.0


def test_numeric_docnos_tie_in_one_order_wherever_a_ranking_is_made(tmp_path):
    docnos = [10, 9, 100]
    wanted = ["9", "100", "10"]
    frame = pd.DataFrame(
        {"qid": "q", "query": "copy", "docno": docnos, "text": "copy it", "score": 1.0, "rank": [2, 1, 0]}
    )
    assert list(map(str, ranked(frame, np.ones(3, dtype=np.float32))["docno"])) == wanted
    (tmp_path / "run").write_text("".join(f"q Q0 {docno} 1 1.0 tag\n" for docno in docnos))
    assert read_run(tmp_path / "run")["docno"].tolist() == wanted
    bm25 = pytest.importorskip("bm25s") and Bm25Retriever([{"docno": docno, "text": "copy it"} for docno in docnos])
    assert list(map(str, bm25.search("copy")["docno"])) == wanted
    drawn = pytest.importorskip("matplotlib.pyplot") and plots.rank_movement(frame, frame)
    assert [label.get_text().split()[0] for label in drawn.texts[:6:2]] == wanted
    qrels = pd.DataFrame({"qid": ["q"], "docno": [9], "label": [1]})
    candidates = judged_candidates(frame, qrels, text_field="text", needs_positive=True)
    assert list(map(str, candidates.frame["docno"])) == wanted


def test_bm25_cuts_where_the_order_says():
    bm25 = pytest.importorskip("bm25s") and Bm25Retriever(
        [{"docno": f"d{number}", "text": "copy it"} for number in range(5)], num_results=2
    )
    assert bm25.search("copy")["docno"].tolist() == ["d4", "d3"]


@pytest.mark.parametrize("dtype", ["object", "string[python]", "string[pyarrow]"])
def test_a_column_keeps_its_strings_also_what_stands_after_a_nul(dtype):
    strings = ["a\0b", "a", "a\0c", "a", "\0", "", "b"]
    values = values_of(pd.Series(strings, dtype=dtype))
    assert values.dtype == object
    assert values.tolist() == strings
    assert pd.isna(values_of(pd.Series(["a", None], dtype=dtype))).tolist() == [False, True]
