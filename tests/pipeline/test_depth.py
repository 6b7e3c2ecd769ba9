"""Re-ranking the first k only: the rest stays below, in its order."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyterrier as pt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.pipeline.depth import first_rows, with_rest_below
from pyterrier_bertcat.pipeline.frames import ranked
from pyterrier_bertcat.reranker import BertCatReRanker

some_rows = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([3.0, 2.0, 1.0, -5.5])), max_size=25)


def frame(rows: list[tuple[str, float]]) -> pd.DataFrame:
    qids, scores = [row[0] for row in rows], [row[1] for row in rows]
    docnos = [f"d{number:02}" for number in range(len(rows))]
    return pd.DataFrame({"qid": qids, "query": "fox", "docno": docnos, "text": "a dog " * 3, "score": scores})


@given(some_rows, st.integers(1, 6), st.randoms(use_true_random=False))
def test_the_first_are_rescored_and_the_rest_keeps_its_order_below(rows, depth, random):
    inp = frame(rows)
    before = ranked(inp, inp["score"].to_numpy(dtype=np.float32))
    first = first_rows(inp, depth)
    new = np.array([random.uniform(-9, 9) for _ in range(first.sum())], dtype=np.float32)
    after = ranked(inp, with_rest_below(inp, first, new))
    for qid, old in before.groupby("qid"):
        now = after[after["qid"] == qid]
        head, rest = now["docno"].tolist()[:depth], now["docno"].tolist()[depth:]
        assert set(head) == set(old["docno"][:depth])
        assert rest == old["docno"].tolist()[depth:]
        assert (np.diff(now["score"][depth - 1 :]) < 0).all()
    scores = after.set_index("docno")["score"]
    assert scores[inp["docno"][first]].tolist() == new.tolist()


@pytest.fixture(scope="module")
def bertcat(tiny_checkpoint) -> BertCatReRanker:
    return BertCatReRanker(tiny_checkpoint, device="cpu", depth=2, extra_columns=["passages"], verbose=False)


def test_the_reranker_reads_only_the_first(bertcat):
    inp = frame([("q", 3.0), ("q", 1.0), ("q", 2.0), ("p", 1.0)]).assign(text=["a", None, "b", "c"])
    out = bertcat(inp)
    assert bertcat.stats.pairs == 3
    assert out["docno"].tolist()[2:] == ["d01", "d03"]
    assert out["score"][2] == out["score"][1] - 1
    assert out["rank"].tolist() == [0, 1, 2, 0]
    assert out["passages"].tolist() == [1, 1, 0, 1]
    assert out.columns.tolist() == ["qid", "query", "docno", "text", "passages", "score", "rank"]


def test_an_empty_frame_stays_empty(bertcat):
    out = bertcat(frame([]))
    assert (len(out), out["score"].dtype, out["passages"].dtype) == (0, np.float32, np.int64)


def test_the_rows_own_scores_are_needed(bertcat):
    with pytest.raises(pt.validate.InputValidationError, match="score"):
        bertcat(frame([("q", 1.0)]).drop(columns="score"))
    with pytest.raises(InputError, match=r"1 of them are not numbers \(1 missing\)"):
        bertcat(frame([("q", 1.0), ("q", np.nan)]))
    assert "score" in pt.inspect.transformer_inputs(bertcat)[0]
