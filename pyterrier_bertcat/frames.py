"""PyTerrier result frames: which rows can be scored, and how scores become an ordered, ranked frame. pandas only.

Everything goes by position, so any index will do (duplicates, strings, several levels), and the caller's frame is
never changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import pyterrier as pt
from numpy.typing import NDArray

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.surrogates import lone_surrogate

MissingText = Literal["raise", "empty"]
MISSING_TEXT_CHOICES: tuple[str, ...] = get_args(MissingText)
OUTPUT_COLUMNS = ("score", "rank")
Rows = NDArray[np.int64]

_ROWS_NAMED = 3
_EXPECTED = {"qid": "values", "score": "numbers"}


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
        InputError: a column that occurs twice, a ``qid`` that is missing or can't be compared, or a query or text that
            is not a string of Unicode. One error for the whole frame, with each column, the count and the first few
            rows.
    """
    refuse_repeated_columns(inp, ("qid", "docno", "query", text_field))
    queries, texts = (_values(inp[column]) for column in ("query", text_field))
    if missing_text == "empty":
        texts = np.where(pd.isna(texts), "", texts)
    wrong = {"qid": unusable_qids(inp["qid"]), "query": _not_strings(queries), text_field: _not_strings(texts)}
    remedy = "Give every row a qid, a query string and a text string, or drop these rows"
    if missing_text == "raise":
        remedy += "; missing_text='empty' scores a missing text as an empty one"
    refuse_rows(inp, wrong, remedy=remedy)
    return queries.tolist(), texts.tolist()


def refuse_repeated_columns(inp: pd.DataFrame, columns: Iterable[str]) -> None:
    """Makes sure that these columns occur once.

    Raises:
        InputError: One occurs more often.
    """
    for column in columns:
        copies = list(inp.columns).count(column)
        if copies > 1:
            raise InputError(
                f"the frame has {copies} columns called {column!r}, expected one: rename or drop the others"
            )


def unusable_qids(qids: pd.Series[Any]) -> Rows:
    """The rows whose qid is missing, or is something that can't be compared, such as a list."""
    unusable = qids.isna().to_numpy(dtype=np.bool_)
    if qids.dtype == object and pd.api.types.infer_dtype(qids) != "string":
        unusable = unusable | np.array([not _is_hashable(qid) for qid in qids], dtype=np.bool_)
    return np.flatnonzero(unusable)


def refuse_rows(inp: pd.DataFrame, wrong: Mapping[str, Rows], *, remedy: str) -> None:
    """Makes sure that no row is wrong.

    Args:
        inp: a result frame.
        wrong: for each column, the rows whose value there can't be used.
        remedy: what to do about it, as the message's last sentence.

    Raises:
        InputError: there are such rows. It names each column, their count, what they hold, and the first few.
    """
    problems = [_problem(inp, column, rows) for column, rows in wrong.items() if len(rows)]
    if problems:
        raise InputError(f"can't score this frame of {len(inp)} rows: {'; '.join(problems)}. {remedy}.")


def with_strings(inp: pd.DataFrame, *, text_field: str, missing_text: MissingText = "raise") -> pd.DataFrame:
    """A copy of a result frame whose queries and texts are checked strings; see `query_text_pairs`."""
    queries, texts = query_text_pairs(inp, text_field=text_field, missing_text=missing_text)
    strings: pd.DataFrame = inp.assign(**{"query": queries, text_field: texts})
    return strings


def ranked(
    inp: pd.DataFrame,
    scores: np.ndarray[Any, np.dtype[np.float32]],
    *,
    extra: Mapping[str, np.ndarray[Any, Any]] | None = None,
) -> pd.DataFrame:
    """Join scores to rows by position, then order and rank the rows.

    Args:
        inp: a result frame without a missing ``qid``.
        scores: float32 (len(inp),), one per row in the order of the rows.
        extra: further columns by name, one value per row.

    Returns:
        A new frame: the columns of ``inp`` without ``score``, ``rank`` and those in ``extra``, then these, then
        ``score`` (float32) and ``rank`` (int64, the best is 0, as in all of PyTerrier). Queries stand in order of
        first appearance, each one's rows best first, on a fresh index 0..n-1. Equal scores are ordered by docno,
        descending as text, which is how ``pt.Experiment`` and trec_eval break ties, so that ``% k`` cuts where the
        evaluation would; rows that share the docno too keep their order. For no rows: the same columns and types.

    Raises:
        ValueError: if there is not one score for each row.
    """
    if scores.shape != (len(inp),):
        raise ValueError(f"expected one score for each of {len(inp)} rows, got scores of shape {scores.shape}")
    extra = extra or {}
    order, queries = best_first(inp, scores)
    out: pd.DataFrame = inp.drop(columns=[*OUTPUT_COLUMNS, *extra], errors="ignore").iloc[order].reset_index(drop=True)
    for name, values in extra.items():
        out[name] = pd.Series(values[order], dtype=str if values.dtype == object else None)  # no rows: no type to see
    out["score"] = scores[order].astype(np.float32, copy=False)
    # pt.model.add_ranks would give the same, with a warning of pandas 2 where the qids are categories.
    out["rank"] = places(queries) + pt.model.FIRST_RANK
    return out


def best_first(
    inp: pd.DataFrame, scores: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.int64]]]:
    """How rows are ordered: queries as they first appear, best scores first, ties as `ranked` says.

    Args:
        inp: a result frame of n rows.
        scores: (n,), without NaN.

    Returns:
        int64 (n,), the rows in that order; and int64 (n,), for each place in it, the query's number.
    """
    query_codes, _ = pd.factorize(inp["qid"])
    order = np.lexsort((-scores, query_codes))  # stable, as `sorted` is: what is equal keeps its order
    docnos = _values(inp["docno"])
    for tie in _ties(query_codes[order], scores[order]):
        order[tie] = sorted(order[tie].tolist(), key=lambda row: str(docnos[row]), reverse=True)
    return order, query_codes[order]


def places(queries: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each row's place among those of its query, from 0; the rows of a query stand together: both int64 (n,)."""
    counts = np.bincount(queries)
    return np.arange(len(queries), dtype=np.int64) - np.repeat(np.cumsum(counts) - counts, counts)


def _ties(query_codes: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> Iterator[slice]:
    """Find the rows, two or more, that stand together with the same query and score.

    Only their docnos need to be compared: strings are slow to sort, and most rows are in no tie.
    """
    changes = (query_codes[1:] != query_codes[:-1]) | (scores[1:] != scores[:-1])
    bounds = np.flatnonzero(np.concatenate(([True], changes, [True])))
    tied = np.flatnonzero(np.diff(bounds) > 1)
    return map(slice, bounds[tied].tolist(), bounds[tied + 1].tolist())


def _values(column: pd.Series[Any]) -> np.ndarray[Any, Any]:
    if not isinstance(column.dtype, pd.StringDtype):
        return column.to_numpy(dtype=object)
    # From such a column's own storage, each value would become a Python string of its own: make equal ones one.
    codes, distinct = pd.factorize(column)
    values = np.empty(len(distinct) + 1, dtype=object)
    values[:-1], values[-1] = distinct.to_numpy(dtype=object), np.nan  # what is missing has the code -1
    shared: np.ndarray[Any, Any] = values[codes]
    return shared


def _not_strings(values: np.ndarray[Any, Any]) -> Rows:
    if pd.api.types.infer_dtype(values, skipna=False) == "string":  # a quick pass over all, in C
        wrong = {value for value in set(values) if lone_surrogate(value) is not None}
        unusable = [value in wrong for value in values] if wrong else []
    else:
        unusable = [not isinstance(value, str) or lone_surrogate(value) is not None for value in values]
    return np.flatnonzero(unusable)


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _problem(inp: pd.DataFrame, column: str, rows: Rows) -> str:
    """Say what is wrong in a column in some rows."""
    values = _values(inp[column])[rows]
    kinds = Counter(
        "missing" if missing else _kind(value) for value, missing in zip(values, pd.isna(values), strict=True)
    )
    kinds_text = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    first = inp[["docno", "qid"]].iloc[rows[:_ROWS_NAMED]]
    pairs = zip(_values(first["docno"]), _values(first["qid"]), strict=True)
    named = [f"docno {docno!r} of qid {qid!r}" for docno, qid in pairs]
    more = ", …" if len(rows) > _ROWS_NAMED else ""
    expected = _EXPECTED.get(column, "strings")
    return f"in column {column!r} {len(rows)} of them are not {expected} ({kinds_text}): {', '.join(named)}{more}"


def _kind(value: object) -> str:
    return (
        "with a lone surrogate"
        if isinstance(value, str) and lone_surrogate(value) is not None
        else type(value).__name__
    )
