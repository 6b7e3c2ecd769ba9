"""Columns on request: what was cut, and where the best passage is."""

from __future__ import annotations

import pandas as pd
import pytest
from helpers.frames import frame

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.pairs.passages import Passages
from pyterrier_bertcat.pipeline.frames import EXTRA_COLUMNS
from pyterrier_bertcat.reranker import BertCatReRanker

TEXTS = ["the quick brown fox jumps over the lazy dog, and " * 6, "Fox!", ""]


def test_all_of_them(tiny_checkpoint):
    made = BertCatReRanker(
        tiny_checkpoint,
        passages=Passages(length=11, stride=11),
        extra_columns=EXTRA_COLUMNS,
        device="cpu",
        verbose=False,
    )
    out = made(frame(TEXTS))
    assert out.columns.tolist() == ["qid", "query", "docno", "text", *EXTRA_COLUMNS, "score", "rank"]
    rows = out.set_index("docno")
    assert rows["passages"].tolist() == [{"d1": 6, "d2": 1, "d3": 1}[docno] for docno in rows.index]
    assert rows.loc["d1", "passage"] == "the quick brown fox jumps over the lazy dog, and"
    assert rows.loc["d2", "passage"] == "Fox!"
    assert rows.loc["d3", "passage"] == ""
    for row in rows.itertuples():
        assert row.text[row.passage_start : row.passage_end] == row.passage
        assert row.truncated is False
    again = made(out)  # its own columns in the input are replaced
    pd.testing.assert_frame_equal(again, out)
    assert made(frame(TEXTS).iloc[:0]).columns.tolist() == out.columns.tolist()
    pd.testing.assert_series_equal(made(frame(TEXTS).iloc[:0]).dtypes, out.dtypes)


@pytest.mark.filterwarnings("ignore:1 of 3 pairs were too long")
def test_what_was_cut_is_marked(tiny_checkpoint):
    made = BertCatReRanker(tiny_checkpoint, max_length=20, extra_columns=["truncated"], device="cpu", verbose=False)
    out = made(frame(TEXTS))
    assert dict(zip(out["docno"], out["truncated"], strict=True)) == {"d1": True, "d2": False, "d3": False}


@pytest.mark.parametrize("names", ["truncated", ["nothing"], ["passages", "passages"], None])
def test_other_names_are_refused(names):
    with pytest.raises(InputError, match="extra_columns is a list of some of 'truncated'"):
        BertCatReRanker("mini", extra_columns=names)
