"""Which rows of a frame are refused, and which strings are read from the others."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers.frames import frame, scores_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.pipeline.frames import query_text_pairs, ranked, with_strings


def test_queries_and_texts_come_in_the_order_of_the_rows():
    assert query_text_pairs(frame(), text_field="text") == (["one", "one", "two"], ["alpha", "beta", "gamma"])


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, pd.NaT])
def test_a_missing_text_is_refused_by_column_count_and_docno(missing):
    inp = frame(text=pd.Series(["alpha", missing, "gamma"], dtype=object))
    with pytest.raises(InputError, match=r"3 rows.*'text' 1 .*1 missing.*docno 'b' of qid '1'.*missing_text='empty'"):
        query_text_pairs(inp, text_field="text")


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA])
def test_a_missing_text_can_be_read_as_an_empty_one(missing):
    inp = frame(text=pd.Series(["alpha", missing, "gamma"], dtype=object))
    assert query_text_pairs(inp, text_field="text", missing_text="empty")[1] == ["alpha", "", "gamma"]


def test_a_copy_with_strings_leaves_the_frame_as_it_was():
    inp = frame(text=["alpha", None, "gamma"])
    before = inp.copy(deep=True)
    assert with_strings(inp, text_field="text", missing_text="empty")["text"].tolist() == ["alpha", "", "gamma"]
    assert_frame_equal(inp, before)
    with pytest.raises(InputError, match="docno 'b'"):
        with_strings(inp, text_field="text")


def test_a_missing_query_is_refused_whatever_missing_text_says():
    with pytest.raises(InputError, match=r"'query' 2 .*docno 'a' of qid '1', docno 'c' of qid '2'"):
        query_text_pairs(frame(query=[None, "one", None]), text_field="text", missing_text="empty")


def test_a_missing_qid_is_refused():
    with pytest.raises(InputError, match=r"'qid' 1 .*docno 'b'"):
        query_text_pairs(frame(qid=["1", None, "2"]), text_field="text")


@pytest.mark.parametrize("missing_text", ["raise", "empty"])
@pytest.mark.parametrize("value", [3, 2.5, b"bytes", ["a", "list"], {"a": "dict"}])
def test_a_text_that_is_not_a_string_is_refused_by_its_type(value, missing_text):
    inp = frame(text=pd.Series(["alpha", value, "gamma"], dtype=object))
    with pytest.raises(InputError, match=rf"1 {type(value).__name__}\).*docno 'b'"):
        query_text_pairs(inp, text_field="text", missing_text=missing_text)


def test_one_error_names_every_column_and_only_the_first_few_rows():
    inp = pd.DataFrame({"qid": ["1"] * 9, "query": ["q"] * 8 + [None], "docno": list("abcdefghi"), "body": [None] * 9})
    with pytest.raises(InputError) as caught:
        query_text_pairs(inp, text_field="body")
    message = str(caught.value)
    assert "'query' 1 " in message
    assert "'body' 9 " in message
    assert "docno 'c' of qid '1', …" in message
    assert "'d'" not in message


def test_empty_strings_are_legal():
    inp = frame(query=["", "", "two"], text=["", "beta", ""])
    assert query_text_pairs(inp, text_field="text") == (["", "", "two"], ["", "beta", ""])


class Text(str):
    """A string of a library's own type."""


def test_subclasses_of_str_are_strings():
    inp = frame(text=pd.Series([Text("alpha"), "beta", np.str_("gamma")], dtype=object))
    assert query_text_pairs(inp, text_field="text")[1] == ["alpha", "beta", "gamma"]


@settings(max_examples=60)
@given(
    st.lists(
        st.sampled_from(["a", "", Text("b"), None, float("nan"), pd.NA, pd.NaT, 3, 2.5, True, b"c", ("a",), ["a"]]),
        max_size=6,
    ),
    st.sampled_from(["raise", "empty"]),
)
def test_every_row_is_checked(texts, missing_text):
    count = len(texts)
    inp = pd.DataFrame(
        {
            "qid": ["1"] * count,
            "query": ["q"] * count,
            "docno": [f"d{row}" for row in range(count)],
            "text": pd.Series(texts, dtype=object),
        }
    )
    if missing_text == "empty":
        texts = ["" if not isinstance(text, list) and pd.isna(text) is True else text for text in texts]
    refused = [row for row, text in enumerate(texts) if not isinstance(text, str)]
    if not refused:
        found = query_text_pairs(inp, text_field="text", missing_text=missing_text)
        assert found == (["q"] * count, texts)
        assert all(isinstance(text, str) for text in found[1])
        return
    with pytest.raises(InputError) as caught:
        query_text_pairs(inp, text_field="text", missing_text=missing_text)
    message = str(caught.value)
    assert f"in column 'text' {len(refused)} of them are not strings" in message
    assert [f"'d{row}'" in message for row in range(count)] == [row in refused[:3] for row in range(count)]


def test_a_column_that_occurs_twice_is_refused():
    inp = frame()
    inp.insert(0, "text", "other", allow_duplicates=True)
    with pytest.raises(InputError, match="2 columns called 'text'"):
        query_text_pairs(inp, text_field="text")


@pytest.mark.parametrize("dtype", ["object", "string", "category", "str"])
def test_any_string_type_of_pandas_will_do(dtype):
    inp = frame()[["qid", "query", "docno", "text"]].astype(dtype)
    assert query_text_pairs(inp, text_field="text") == (["one", "one", "two"], ["alpha", "beta", "gamma"])
    assert ranked(inp, scores_of(1, 2, 3))["docno"].tolist() == ["b", "a", "c"]
