from __future__ import annotations

import os

import pandas as pd
import pyterrier as pt
import pytest

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.pipeline.pyserini import json_text
from pyterrier_bertcat.reranker import BertCatReRanker

os.environ["PT_TEST_TRANSFORMER_REPORTS"] = "0"


def frame(*values: object) -> pd.DataFrame:
    docnos = [f"d{number}" for number in range(len(values))]
    return pd.DataFrame({"qid": "1", "query": "q", "docno": docnos, "raw": list(values)}, index=[7] * len(values))


def test_the_text_is_added_and_the_rest_stays():
    given = frame('{"id": "d0", "contents": "one"}', '{"contents": "zwei \\u00fc"}')
    out = json_text("raw", "contents")(given)
    pd.testing.assert_frame_equal(out.drop(columns="text"), given)
    assert out["text"].tolist() == ["one", "zwei ü"]
    assert "text" not in given


def test_fields_are_joined_and_the_column_is_chosen():
    given = frame('{"title": "T", "body": "b"}')
    assert json_text("raw", ("title", "body"), text_field="passage")(given)["passage"].tolist() == ["T b"]


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("plain text", "docno 'd1', column 'raw': expected a JSON object, got 'plain text'"),
        ("[1]", "docno 'd1', column 'raw': expected a JSON object"),
        (None, "docno 'd1', column 'raw': expected a JSON object, got"),
        ('{"text": "x"}', "docno 'd1', column 'raw': expected a field 'contents', there are 'text'"),
        ('{"contents": 3}', "expected a string in field 'contents', got 3"),
    ],
)
def test_what_can_not_be_read_is_named(value, complaint):
    with pytest.raises(InputError) as caught:
        json_text("raw", "contents")(frame('{"contents": "x"}', value))
    assert complaint in str(caught.value)


def test_no_rows_give_the_same_columns():
    assert json_text("raw", "contents")(frame()).columns.tolist() == ["qid", "query", "docno", "raw", "text"]


def test_pyterrier_can_inspect_it_in_a_pipeline():
    transformer = json_text("raw", "contents")
    assert pt.inspect.transformer_inputs(transformer) == [["docno", "raw"]]
    assert pt.inspect.transformer_outputs(transformer, ["docno", "raw"]) == ["docno", "raw", "text"]
    assert transformer == json_text("raw", "contents") != json_text("raw", "text")
    assert repr(transformer) == "json_text('raw', field='contents')"
    pipeline = transformer >> BertCatReRanker("no/such-model")
    columns = ["qid", "query", "docno", "raw"]
    assert pt.inspect.transformer_outputs(pipeline, columns) == [*columns, "text", "score", "rank"]


class TestAsATransformer(pt.testing.transformer_test_class(lambda: json_text("raw", "contents"))):
    """PyTerrier's own checks."""
