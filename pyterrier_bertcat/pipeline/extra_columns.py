"""Columns that the re-ranker adds on request: what was cut off, and where in a document its best passage is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyterrier_bertcat.scoring.row_scores import ScoredPairs

Columns = dict[str, NDArray[Any]]

# What a row has that the model did not read.
_UNREAD: dict[str, Any] = {"truncated": False, "passages": 0, "passage": "", "passage_start": 0, "passage_end": 0}
EXTRA_COLUMNS = tuple(_UNREAD)


def extra_columns(
    names: Sequence[str],
    scored: ScoredPairs,
    texts: Sequence[str],
    character_ranges: Callable[[Sequence[str], NDArray[np.int64]], NDArray[np.int64]],
) -> Columns:
    """Makes the wanted ones.

    Args:
        names: Some of `EXTRA_COLUMNS`.
        scored: n pairs.
        texts: Their n texts.
        character_ranges: From ranges of the texts' tokens to ranges of their characters, both int64 (2, n).

    Returns:
        By name, (n,) each: ``truncated`` (bool, whether something of the pair was cut off), ``passages`` (int64, how
        many were scored), ``passage`` (the best one's text), ``passage_start`` and ``passage_end`` (int64, its
        characters in the document).
    """
    columns: Columns = {"truncated": np.any(scored.cut, axis=0), "passages": scored.passages}
    if set(names) - set(columns):
        starts, ends = character_ranges(texts, scored.best_passages)
        columns |= {"passage_start": starts, "passage_end": ends}
        passages = [text[start:end] for text, start, end in zip(texts, starts.tolist(), ends.tolist(), strict=True)]
        columns["passage"] = np.array(passages, dtype=object)
    return {name: columns[name] for name in names}


def spread(columns: Columns, names: Sequence[str], rows: NDArray[np.bool_]) -> Columns:
    """Columns of some rows as columns of all, (n,); the others have what was not read: false, 0 or an empty text.

    Args:
        columns: Of the rows that were scored; may be empty where none was.
        names: Which columns.
        rows: bool (n,), which rows were scored.
    """
    all_rows: Columns = {}
    for name in names:
        unread = _UNREAD[name]
        all_rows[name] = np.full(len(rows), unread, dtype=object if isinstance(unread, str) else type(unread))
        if name in columns:
            all_rows[name][rows] = columns[name]
    return all_rows
