"""The order of a ranking: the highest score first, and equal scores by docno, descending as text.

This is the order of trec_eval, and so of ``pt.Experiment``: a cutoff (``% k``) keeps the rows that are evaluated. Runs,
result frames, plots, `Bm25Retriever` and the sampling of training candidates all take their order from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Rows = NDArray[np.int64]


def best_first(queries: NDArray[Any], docnos: NDArray[Any], scores: NDArray[Any]) -> Rows:
    """Sorts the rows of a ranking.

    Args:
        queries: Integers (n,), the number of each row's query. Queries are sorted by it, so number them in order of
            first appearance (``pd.factorize``).
        docnos: Objects (n,). They are compared as text, so 9 comes before 10.
        scores: (n,), without NaN.

    Returns:
        int64 (n,), the positions of the rows, best first within each query. Rows that share query, score and docno
        stay in their order.
    """
    order: Rows = np.lexsort((-scores, queries))  # stable, as `sorted` is
    for tie in _ties(queries[order], scores[order]):
        order[tie] = sorted(order[tie].tolist(), key=lambda row: str(docnos[row]), reverse=True)
    return order


def ranks(ordered_queries: NDArray[Any]) -> Rows:
    """The rank of each row within its query, from 0: integers (n,), rows of a query side by side -> int64 (n,)."""
    starts = np.flatnonzero(np.diff(ordered_queries, prepend=-1))
    counts = np.diff(starts, append=len(ordered_queries))
    numbers: Rows = np.arange(len(ordered_queries), dtype=np.int64) - np.repeat(starts, counts)
    return numbers


def values_of(column: pd.Series[Any]) -> NDArray[Any]:
    """The values of a column as Python objects, (n,). Equal strings out of Arrow are one object, which saves memory."""
    if not (isinstance(column.dtype, pd.StringDtype) and column.dtype.storage.startswith("pyarrow")):
        return column.to_numpy(dtype=object)
    # Arrow would give a new Python string for every row. (Where strings are Python's, pd.factorize must not be used:
    # pandas 2 takes what differs after a NUL for equal.)
    codes, distinct = pd.factorize(column)
    values = np.empty(len(distinct) + 1, dtype=object)
    values[:-1], values[-1] = distinct.to_numpy(dtype=object), np.nan  # a missing value has the code -1
    shared: NDArray[Any] = values[codes]
    return shared


def _ties(queries: NDArray[Any], scores: NDArray[Any]) -> Iterator[slice]:
    """Yields the runs of two or more rows with the same query and score.

    Only their docnos need comparing: sorting strings is slow, and most rows are in no tie.
    """
    changes = (queries[1:] != queries[:-1]) | (scores[1:] != scores[:-1])
    bounds = np.flatnonzero(np.concatenate(([True], changes, [True])))
    tied = np.flatnonzero(np.diff(bounds) > 1)
    return map(slice, bounds[tied].tolist(), bounds[tied + 1].tolist())
