"""PyTerrier result frames: which rows can be scored, and how scores become an ordered, ranked frame. pandas only.

Everything goes by position, so any index will do (duplicates, strings, several levels), and the caller's frame is
never changed.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import pyterrier as pt

from pyterrier_bertcat.errors import InputError

MissingText = Literal["raise", "empty"]
MISSING_TEXT_CHOICES: tuple[str, ...] = get_args(MissingText)
OUTPUT_COLUMNS = ("score", "rank")
_ROWS_NAMED = 3


def query_text_pairs(
    inp: pd.DataFrame, *, text_field: str, missing_text: MissingText = "raise"
) -> tuple[list[str], list[str]]:
    """Read the queries and texts of a result frame, after checking every row.

    Args:
        inp: rows with ``qid``, ``docno``, ``query`` and ``text_field``; any further columns, any index.
        text_field: the column that holds the documents' text.
        missing_text: what None, NaN or NA in ``text_field`` means: ``"raise"`` refuses the frame, ``"empty"`` reads
            it as an empty string. A missing query is always refused.

    Returns:
        The queries and the texts, two lists of ``len(inp)`` strings in the order of the rows. Empty strings are legal.

    Raises:
        InputError: a column that occurs twice, a missing ``qid``, or a query or text that is not a string. One error
            for the whole frame, with each column, the count and the first few rows.
    """
    for column in ("qid", "docno", "query", text_field):
        copies = list(inp.columns).count(column)
        if copies > 1:
            raise InputError(
                f"the frame has {copies} columns called {column!r}, expected one: rename or drop the others"
            )
    queries, texts = (_values(inp, column) for column in ("query", text_field))
    if missing_text == "empty":
        texts = ["" if not isinstance(text, str) and _is_missing(text) else text for text in texts]
    problems = [
        problem
        for problem in (
            _problem(inp, "qid", np.flatnonzero(inp["qid"].isna().to_numpy())),
            _problem(inp, "query", _not_strings(queries)),
            _problem(inp, text_field, _not_strings(texts)),
        )
        if problem
    ]
    if problems:
        remedy = "Give every row a qid, a query string and a text string, or drop these rows"
        if missing_text == "raise":
            remedy += "; missing_text='empty' scores a missing text as an empty one"
        raise InputError(f"can't score this frame of {len(inp)} rows: {'; '.join(problems)}. {remedy}.")
    return queries, texts


def with_strings(inp: pd.DataFrame, *, text_field: str, missing_text: MissingText = "raise") -> pd.DataFrame:
    """A copy of a result frame whose queries and texts are checked strings; see `query_text_pairs`."""
    queries, texts = query_text_pairs(inp, text_field=text_field, missing_text=missing_text)
    strings: pd.DataFrame = inp.assign(**{"query": queries, text_field: texts})
    return strings


def ranked(inp: pd.DataFrame, scores: np.ndarray[Any, np.dtype[np.float32]]) -> pd.DataFrame:
    """Join scores to rows by position, then order and rank the rows.

    Args:
        inp: a result frame without a missing ``qid``.
        scores: float32 (len(inp),), one per row in the order of the rows.

    Returns:
        A new frame: the columns of ``inp`` without ``score`` and ``rank``, then ``score`` (float32) and ``rank``
        (int64, by ``pt.model.add_ranks``: the best is 0). Queries stand in order of first appearance, each one's rows
        best first, on a fresh index 0..n-1. Equal scores are ordered by docno, descending as text, which is how
        ``pt.Experiment`` and trec_eval break ties, so that ``% k`` cuts where the evaluation would; rows that share
        the docno too keep their order. For no rows: the same columns and types.

    Raises:
        ValueError: if there is not one score for each row.
    """
    if scores.shape != (len(inp),):
        raise ValueError(f"expected one score for each of {len(inp)} rows, got scores of shape {scores.shape}")
    query_codes, _ = pd.factorize(inp["qid"])
    docno_codes, _ = pd.factorize(inp["docno"].astype(object).map(str), sort=True)
    order = np.lexsort((-docno_codes, -scores, query_codes))  # stable, so what is equal keeps its order
    out = inp.drop(columns=list(OUTPUT_COLUMNS), errors="ignore").iloc[order].reset_index(drop=True)
    out["score"] = scores[order].astype(np.float32, copy=False)
    return pt.model.add_ranks(out)  # type: ignore[no-any-return]


def _values(inp: pd.DataFrame, column: str) -> list[Any]:
    return list(inp[column].to_numpy(dtype=object))


def _is_missing(value: object) -> bool:
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))  # type: ignore[call-overload]


def _not_strings(values: list[Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array([row for row, value in enumerate(values) if not isinstance(value, str)], dtype=np.int64)


def _problem(inp: pd.DataFrame, column: str, rows: np.ndarray[Any, Any]) -> str:
    """Say what is wrong in a column, or nothing where no row is."""
    if not len(rows):
        return ""
    bad = inp.iloc[rows]
    kinds = Counter("missing" if _is_missing(value) else type(value).__name__ for value in _values(bad, column))
    kinds_text = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    named = [
        f"docno {docno!r} of qid {qid!r}"
        for docno, qid in zip(_values(bad, "docno")[:_ROWS_NAMED], _values(bad, "qid")[:_ROWS_NAMED], strict=True)
    ]
    more = ", …" if len(rows) > _ROWS_NAMED else ""
    expected = "values" if column == "qid" else "strings"
    return f"in column {column!r} {len(rows)} of them are not {expected} ({kinds_text}): {', '.join(named)}{more}"
