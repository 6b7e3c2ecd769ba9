"""PyTerrier result frames: which rows can be scored, which columns are added, and how scores rank the rows.

Rows are identified by position, so a frame may have any index (duplicates, strings, several levels). The caller's frame
is never changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import pyterrier as pt
from numpy.typing import NDArray

from pyterrier_bertcat.data.order import Rows, best_first, ranks, values_of
from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.pairs.strings import lone_surrogate
from pyterrier_bertcat.scoring.row_scores import ScoredPairs

MissingText = Literal["raise", "empty"]
MISSING_TEXT_CHOICES: tuple[str, ...] = get_args(MissingText)
OUTPUT_COLUMNS = ("score", "rank")
Columns = dict[str, NDArray[Any]]

# The values of rows that the model did not read.
_UNREAD: dict[str, Any] = {"truncated": False, "passages": 0, "passage": "", "passage_start": 0, "passage_end": 0}
EXTRA_COLUMNS = tuple(_UNREAD)

_ROWS_NAMED = 3
_EXPECTED = {"qid": "values", "score": "numbers"}


def query_text_pairs(
    inp: pd.DataFrame, *, text_field: str, missing_text: MissingText = "raise"
) -> tuple[list[str], list[str]]:
    """Reads the queries and texts of a result frame, after checking every row.

    If a text is None, NaN or NA, ``missing_text="raise"`` refuses the frame and ``"empty"`` reads an empty string. A
    missing query is always refused; empty strings are legal.

    Returns:
        The queries and the texts: two lists of ``len(inp)`` strings, in the order of the rows.

    Raises:
        InputError: A column occurs twice, a ``qid`` is missing or can't be compared, or a query or text is not a valid
            string. One error covers the whole frame, with each column, the count and the first few rows.
    """
    refuse_repeated_columns(inp, ("qid", "docno", "query", text_field))
    queries, texts = (values_of(inp[column]) for column in ("query", text_field))
    if missing_text == "empty":
        texts = np.where(pd.isna(texts), "", texts)
    wrong = {"qid": unusable_qids(inp["qid"]), "query": _not_strings(queries), text_field: _not_strings(texts)}
    remedy = "Give every row a qid, a query string and a text string, or drop these rows"
    if missing_text == "raise":
        remedy += "; missing_text='empty' scores a missing text as an empty one"
    refuse_rows(inp, wrong, remedy=remedy)
    return queries.tolist(), texts.tolist()


def refuse_repeated_columns(inp: pd.DataFrame, columns: Iterable[str]) -> None:
    """Refuses a frame in which one of these columns occurs more than once."""
    for column in columns:
        copies = list(inp.columns).count(column)
        if copies > 1:
            raise InputError(
                f"the frame has {copies} columns called {column!r}, expected one: rename or drop the others"
            )


def unusable_qids(qids: pd.Series[Any]) -> Rows:
    """Positions of the rows whose qid is missing, or can't be compared, such as a list."""
    unusable = qids.isna().to_numpy(dtype=np.bool_)
    if qids.dtype == object and pd.api.types.infer_dtype(qids) != "string":
        unusable = unusable | np.array([not _is_hashable(qid) for qid in qids], dtype=np.bool_)
    return np.flatnonzero(unusable)


def refuse_rows(inp: pd.DataFrame, wrong: Mapping[str, Rows], *, remedy: str) -> None:
    """Refuses a frame with wrong rows; the error names each column, the count, the kinds and the first few.

    ``wrong`` has the positions of the wrong rows for each column. ``remedy`` says what to do, as the last sentence.
    """
    problems = [_problem(inp, column, rows) for column, rows in wrong.items() if len(rows)]
    if problems:
        raise InputError(f"can't score this frame of {len(inp)} rows: {'; '.join(problems)}. {remedy}.")


def row_frame(row: Any) -> pd.DataFrame | None:
    """The frame of one row: from a Series (``frame.iloc[0]``), a record, or a row of ``itertuples``; otherwise None."""
    if isinstance(row, pd.Series):
        one: pd.DataFrame = row.to_frame().T.infer_objects()
        return one
    if isinstance(row, tuple) and hasattr(row, "_asdict"):
        row = row._asdict()
    return pd.DataFrame([dict(row)]) if isinstance(row, Mapping) else None


def with_strings(inp: pd.DataFrame, *, text_field: str, missing_text: MissingText = "raise") -> pd.DataFrame:
    """A copy of a result frame whose queries and texts are checked strings; see `query_text_pairs`."""
    queries, texts = query_text_pairs(inp, text_field=text_field, missing_text=missing_text)
    strings: pd.DataFrame = inp.assign(**{"query": queries, text_field: texts})
    return strings


def ranked(
    inp: pd.DataFrame,
    scores: np.ndarray[Any, np.dtype[np.float32]],
    *,
    extra: Columns | None = None,
) -> pd.DataFrame:
    """Joins scores to rows by position, then orders and ranks the rows.

    Args:
        inp: A result frame without a missing ``qid``.
        scores: float32 (len(inp),), in the order of the rows.
        extra: Further columns by name, (len(inp),) each.

    Returns:
        A new frame with a fresh index: the columns of ``inp`` (without ``score``, ``rank`` and those in ``extra``),
        those in ``extra``, ``score`` (float32) and ``rank`` (int64, 0 is best). Queries stay in order of first
        appearance, their rows best first, ties as in `best_first`. No rows give the same columns and types.
    """
    if scores.shape != (len(inp),):
        raise ValueError(f"expected one score for each of {len(inp)} rows, got scores of shape {scores.shape}")
    extra = extra or {}
    queries, _ = pd.factorize(inp["qid"])
    order = best_first(queries, values_of(inp["docno"]), scores)
    out: pd.DataFrame = inp.drop(columns=[*OUTPUT_COLUMNS, *extra], errors="ignore").iloc[order].reset_index(drop=True)
    for name, values in extra.items():
        out[name] = pd.Series(values[order], dtype=str if values.dtype == object else None)  # no rows show no type
    out["score"] = scores[order].astype(np.float32, copy=False)
    # pt.model.add_ranks does the same, but pandas 2 then warns about categorical qids.
    out["rank"] = ranks(queries[order]) + pt.model.FIRST_RANK
    return out


def unread_columns(names: Sequence[str], rows: int) -> Columns:
    """Extra columns, (rows,) each, of rows that the model did not read: False, 0 or an empty text."""
    unread = {name: _UNREAD[name] for name in names}
    types = {name: object if value == "" else type(value) for name, value in unread.items()}
    return {name: np.full(rows, value, dtype=types[name]) for name, value in unread.items()}


def extra_columns(
    names: Sequence[str],
    scored: ScoredPairs,
    texts: Sequence[str],
    character_ranges: Callable[[Sequence[str], NDArray[np.int64]], NDArray[np.int64]],
) -> Columns:
    """Makes extra columns for n scored pairs, (n,) each.

    ``truncated`` (bool: the query or the text was cut), ``passages`` (int64: how many were scored), ``passage`` (the
    best one's text), ``passage_start`` and ``passage_end`` (int64: its characters in the document). The function
    ``character_ranges`` turns ranges of the texts' tokens into ranges of their characters, both int64 (2, n).
    """
    columns: Columns = {"truncated": np.any(scored.cut, axis=0), "passages": scored.passages}
    if set(names) - set(columns):
        starts, ends = character_ranges(texts, scored.best_passages)
        columns |= {"passage_start": starts, "passage_end": ends}
        passages = [text[start:end] for text, start, end in zip(texts, starts.tolist(), ends.tolist(), strict=True)]
        columns["passage"] = np.array(passages, dtype=object)
    return {name: columns[name] for name in names}


def _not_strings(values: np.ndarray[Any, Any]) -> Rows:
    if pd.api.types.infer_dtype(values, skipna=False) == "string":  # a quick check of all values, in C
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
    """Describes the wrong rows of a column."""
    values = values_of(inp[column])[rows]
    kinds = Counter(
        "missing" if missing else _kind(value) for value, missing in zip(values, pd.isna(values), strict=True)
    )
    kinds_text = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    first = inp[["docno", "qid"]].iloc[rows[:_ROWS_NAMED]]
    pairs = zip(values_of(first["docno"]), values_of(first["qid"]), strict=True)
    named = [f"docno {docno!r} of qid {qid!r}" for docno, qid in pairs]
    more = ", …" if len(rows) > _ROWS_NAMED else ""
    expected = _EXPECTED.get(column, "strings")
    return f"in column {column!r} {len(rows)} of them are not {expected} ({kinds_text}): {', '.join(named)}{more}"


def _kind(value: object) -> str:
    is_broken = isinstance(value, str) and lone_surrogate(value) is not None
    return "with a lone surrogate" if is_broken else type(value).__name__
