"""Odd frames: each is scored right, or refused with a message that names the column and the row. Never anything else.

150 frames by default; ``FUZZ_EXAMPLES=10000 pytest tests/test_fuzz.py`` for more.
"""

from __future__ import annotations

import os
from collections.abc import Hashable

import numpy as np
import pandas as pd
import pyterrier as pt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyterrier_bertcat import BertCatReRanker, Passages
from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.scoring.pair_scorer import PairScorer

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
PASSAGES = Passages(length=5, stride=3)
DEPTH = 2
OPTIONS = {
    "plain": {},
    "empty": {"missing_text": "empty"},
    "passages": {"passages": PASSAGES, "extra_columns": ["passage", "truncated"]},
    "depth": {"depth": DEPTH},
    "store": {"missing_text": "empty"},
}

ODD_STRINGS = [
    "",
    " \t\n\u3000",
    "[SEP]",
    "[CLS] [PAD] [UNK] [MASK] ##ing",
    "\x00",
    "a\x00b\x07\x1b[31m",
    "\u202eright to left\u202c\u200b\ufeff",
    "e\u0301" * 50,
    "👩‍👩‍👧‍👦🏴󠁧󠁢󠁥󠁮󠁧󠁿" * 20,
    "中文字" * 200,
    "word " * 3000,
    "x" * 20_000,
    "nan",
    "None",
]
NO_UNICODE = ["\ud800", "half a pair \udfff in a text"]
MISSING = [None, float("nan"), pd.NA, pd.NaT]
NO_STRINGS = [*MISSING, b"bytes", 3, -2.5, True, ["a"], {"a": 1}, ("a", "b"), np.array([1, 2]), ..., 1j]
NO_QIDS = [*MISSING, ["q1"], {"q": 1}, {1}, np.array([1])]
strings = st.sampled_from(ODD_STRINGS) | st.text(max_size=30) | st.sampled_from(["a text", "another text"])
DTYPES = ["object", "str", "string", "string[python]", "category", "large_string[pyarrow]", "string[pyarrow]"]
INDEXES = [
    lambda n: pd.RangeIndex(n),
    lambda n: pd.Index([7] * n, name="qid"),
    lambda n: pd.Index([None] * n, name="text"),
    lambda n: pd.MultiIndex.from_arrays([[0] * n, ["x"] * n], names=["docno", None]),
    lambda n: pd.DatetimeIndex(["2024-02-29"] * n),
]


def mostly(good, bad):
    """Values that are rarely bad, so that about half of the frames can be scored."""
    return st.integers(0, 19).flatmap(lambda number: good if number else bad)


COLUMNS = {
    "qid": mostly(st.sampled_from(["q1", "q2", "", 1, 2.5, b"q", ("q", 1)]), st.sampled_from(NO_QIDS)),
    "query": mostly(strings, st.sampled_from(NO_STRINGS + NO_UNICODE)),
    "docno": st.sampled_from(["d1", "d2", "d10", "", "ü", 7, None, b"d", ("d",), ["d"], "\ud800"]),
    "text": mostly(strings, st.sampled_from(NO_STRINGS + NO_UNICODE)),
    "score": mostly(st.sampled_from([0.0, -0.0, 1, 2.5, -1e30, np.inf]), st.sampled_from([None, np.nan, "high", [1]])),
}


@st.composite
def odd_frames(draw):
    count = draw(st.integers(0, 6))
    frame = pd.DataFrame({"row": np.arange(count)})
    for name, values in COLUMNS.items():
        column = pd.Series(draw(st.lists(values, min_size=count, max_size=count)), dtype=object)
        frame[name] = column
        if name != "score" and draw(st.booleans()):
            dtype = draw(st.sampled_from(DTYPES))
            try:
                frame[name] = column.astype(dtype)
            except Exception:  # pandas or pyarrow can't hold such values so
                frame[name] = column
    for name in draw(st.sets(st.sampled_from(["rank", "url", "truncated", 3, None]))):
        frame[name] = [[1]] * count
    frame = frame[draw(st.permutations(list(frame.columns)))]
    frame = frame.set_axis(draw(st.sampled_from(INDEXES))(count))
    change = draw(st.integers(0, 19))
    if change == 0:
        frame = frame.drop(columns=[draw(st.sampled_from(list(frame.columns)))])
    elif change == 1:
        name = draw(st.sampled_from([*COLUMNS, "rank"]))
        frame.insert(0, name, "other", allow_duplicates=True)
    elif change == 2:
        frame.columns = pd.MultiIndex.from_product([["a"], frame.columns.map(str)])
    return frame


def is_text(value):
    return isinstance(value, str) and value.encode(errors="ignore").decode() == value


def is_missing(value):
    return pd.api.types.is_scalar(value) and bool(pd.isna(value))


def is_qid(value):
    return isinstance(value, Hashable) and not is_missing(value)


def is_number(value):
    return isinstance(value, (int, float)) and not is_missing(value)


def faults(frame, kind):
    """The error that has to come, and what is wrong: one of these has to be in the message, with all its parts."""
    names = [name for name in COLUMNS if name != "score" or kind == "depth"]
    columns = list(frame.columns)
    if missing := [(name,) for name in names if name not in columns]:
        return pt.validate.InputValidationError, missing
    double = [name for name in names if columns.count(name) > 1]
    if double and (kind != "depth" or not {"query", "text"}.issuperset(double)):
        return InputError, [(repr(name),) for name in double]
    values = {name: frame[name].to_numpy(dtype=object) for name in names if name not in double}
    wrong = [("qid", row) for row, qid in enumerate(values["qid"]) if not is_qid(qid)]
    if kind == "depth":
        wrong += [("score", row) for row, score in enumerate(values["score"]) if not is_number(score)]
    if double and not wrong:  # depth looks at queries and texts after all else
        return InputError, [(repr(name),) for name in double]
    missing_text = OPTIONS[kind].get("missing_text", "raise")
    for row in [] if wrong else rows_to_score(values, kind):
        if not is_text(values["query"][row]):
            wrong.append(("query", row))
        text = values["text"][row]
        if not is_text(text) and not (missing_text == "empty" and is_missing(text)):
            wrong.append(("text", row))
    # pandas has several values for what is missing, and makes one of another.
    docnos = ["" if is_missing(docno) else repr(docno) for docno in values["docno"]]
    return InputError, [(repr(name), f"docno {docnos[row]}") for name, row in wrong]


def rows_to_score(values, kind):
    """All, or with depth those that sorting naively puts first."""
    rows = range(len(values["docno"]))
    if kind != "depth":
        return list(rows)
    by_docno = sorted(rows, key=lambda row: str(values["docno"][row]), reverse=True)
    places: dict = {}
    first = []
    for row in sorted(by_docno, key=lambda row: -values["score"][row]):
        place = places[values["qid"][row]] = places.get(values["qid"][row], 0) + 1
        if place <= DEPTH:
            first.append(row)
    return first


@pytest.fixture(scope="module")
def rerankers(tiny_checkpoint, tmp_path_factory):
    more = {"store": {"store": tmp_path_factory.mktemp("fuzz") / "store"}}
    return {
        kind: BertCatReRanker(tiny_checkpoint, device="cpu", verbose=False, **options, **more.get(kind, {}))
        for kind, options in OPTIONS.items()
    }


@pytest.fixture(scope="module")
def scorers(tiny_checkpoint):
    return {
        kind: PairScorer(tiny_checkpoint, device="cpu", verbose=False, passages=options.get("passages"))
        for kind, options in OPTIONS.items()
    }


@pytest.mark.filterwarnings("ignore:.* too long")
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(frame=odd_frames(), kind=st.sampled_from(sorted(OPTIONS)))
def test_an_odd_frame_is_scored_right_or_refused_by_the_row(frame, kind, rerankers, scorers):
    expected_error, wrong = faults(frame, kind)
    if wrong:
        with pytest.raises(expected_error) as refusal:
            rerankers[kind].transform(frame)
        message = str(refusal.value)
        assert any(all(part in message for part in parts) for parts in wrong), f"{message}: none of {wrong}"
        return
    out = rerankers[kind].transform(frame)
    assert len(out) == len(frame)
    assert list(out.columns)[-2:] == ["score", "rank"]
    if "row" not in frame.columns:  # which the test itself took out
        return
    values = {name: frame[name].to_numpy(dtype=object) for name in frame.columns if name in COLUMNS}
    rows = rows_to_score(values, kind)
    queries = [str(values["query"][row]) for row in rows]
    texts = ["" if is_missing(values["text"][row]) else str(values["text"][row]) for row in rows]
    got = out.set_index("row")["score"].loc[rows].to_numpy()
    np.testing.assert_allclose(got, scorers[kind].score(queries, texts), atol=5e-5)
