"""Re-ranking only the first of each query, and keeping the rest below."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyterrier_bertcat.frames import best_first, places, refuse_repeated_columns, refuse_rows, unusable_qids


def first_rows(inp: pd.DataFrame, depth: int) -> NDArray[np.bool_]:
    """Which rows are among the first ``depth`` of their query: bool (n,).

    Args:
        inp: a result frame of n rows; the first are those with the highest ``score``, ties as in ``pt.Experiment``.
        depth: how many.

    Raises:
        InputError: a ``score`` is missing or not a number, or a ``qid`` is missing or can't be compared.
    """
    refuse_repeated_columns(inp, ("qid", "docno", "score"))
    wrong = {"qid": unusable_qids(inp["qid"]), "score": np.flatnonzero(np.isnan(_numbers(inp["score"])))}
    refuse_rows(inp, wrong, remedy="With depth=, the rows' own scores say which of a query are the first")
    order, _, place = _places(inp)
    first = np.empty(len(inp), dtype=np.bool_)
    first[order] = place < depth
    return first


def with_rest_below(inp: pd.DataFrame, first: NDArray[np.bool_], scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scores of all rows: the new ones, and for the rest ones that keep it below and in its order.

    Args:
        inp: a result frame of n rows.
        first: bool (n,), from `first_rows`.
        scores: float32, the new scores of these rows.

    Returns:
        float32 (n,). The rest of a query gets its lowest new score minus 1, minus 2, and so on.
    """
    order, queries, place = _places(inp)
    all_scores = np.zeros(len(inp), dtype=np.float32)
    all_scores[first] = scores
    if not len(inp):
        return all_scores
    is_first = first[order]
    lowest = np.full(int(queries.max()) + 1, np.inf, dtype=np.float32)
    np.minimum.at(lowest, queries[is_first], all_scores[order[is_first]])
    depth = np.bincount(queries[is_first])  # of each query
    all_scores[order[~is_first]] = lowest[queries[~is_first]] - (place - depth[queries] + 1)[~is_first]
    return all_scores


def _places(inp: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows from best to worst of each query, the number of each one's query, and its place there, from 0 on."""
    order, queries = best_first(inp, _numbers(inp["score"]))
    return order, queries, places(queries)


def _numbers(column: pd.Series[Any]) -> NDArray[np.float64]:
    """float64 (n,), NaN for what is no number."""
    numbers: NDArray[np.float64]
    try:
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):  # which does not say of which row
        numbers = np.array([float(value) if isinstance(value, Real) else np.nan for value in column], dtype=np.float64)
    return numbers
