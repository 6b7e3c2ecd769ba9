"""Re-ranking only the first rows of each query, by their scores so far.

The model doesn't read the other rows. They get made-up scores, which say nothing about relevance: these only keep the
rows below the re-ranked ones, in their order so far.
"""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyterrier_bertcat.data.order import best_first, ranks, values_of
from pyterrier_bertcat.pipeline.frames import refuse_repeated_columns, refuse_rows, unusable_qids


def first_rows(inp: pd.DataFrame, depth: int) -> NDArray[np.bool_]:
    """Which rows are among the first ``depth`` of their query, by ``score``, ties as in ``pt.Experiment``: bool (n,).

    Raises:
        InputError: A ``score`` is missing or not a number, or a ``qid`` is missing or can't be compared.
    """
    refuse_repeated_columns(inp, ("qid", "docno", "score"))
    wrong = {"qid": unusable_qids(inp["qid"]), "score": np.flatnonzero(np.isnan(_numbers(inp["score"])))}
    refuse_rows(inp, wrong, remedy="depth= needs a score in every row, to find the first rows of each query")
    order, _, place = _places(inp)
    first = np.empty(len(inp), dtype=np.bool_)
    first[order] = place < depth
    return first


def with_rest_below(inp: pd.DataFrame, first: NDArray[np.bool_], scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores for every row: the new ``scores`` for the ``first`` rows, and made-up ones for the rest.

    Returns:
        float32 (n,). The rest of a query get its lowest new score minus 1, minus 2, and so on, in their order so far.
    """
    order, queries, place = _places(inp)
    all_scores = np.zeros(len(inp), dtype=np.float32)
    all_scores[first] = scores
    if not len(inp):
        return all_scores
    is_first = first[order]
    lowest = np.full(int(queries.max()) + 1, np.inf, dtype=np.float32)
    np.minimum.at(lowest, queries[is_first], all_scores[order[is_first]])
    depth = np.bincount(queries[is_first])  # (queries,): fewer than asked for if a query has fewer rows
    all_scores[order[~is_first]] = lowest[queries[~is_first]] - (place - depth[queries] + 1)[~is_first]
    return all_scores


def _places(inp: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows, best first within each query; the number of each row's query; and its place there, from 0. (n,) each."""
    queries, _ = pd.factorize(inp["qid"])
    order = best_first(queries, values_of(inp["docno"]), _numbers(inp["score"]))
    return order, queries[order], ranks(queries[order])


def _numbers(column: pd.Series[Any]) -> NDArray[np.float64]:
    """float64 (n,), NaN for anything that is not a number."""
    numbers: NDArray[np.float64]
    try:
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):  # the error doesn't say which row it is about
        numbers = np.array([float(value) if isinstance(value, Real) else np.nan for value in column], dtype=np.float64)
    return numbers
