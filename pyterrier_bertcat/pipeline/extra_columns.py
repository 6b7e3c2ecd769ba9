"""Columns that the re-ranker adds on request: whether a pair was cut, and where a document's best passage is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyterrier_bertcat.scoring.row_scores import ScoredPairs

Columns = dict[str, NDArray[Any]]

# The values of rows that the model did not read.
_UNREAD: dict[str, Any] = {"truncated": False, "passages": 0, "passage": "", "passage_start": 0, "passage_end": 0}
EXTRA_COLUMNS = tuple(_UNREAD)


def extra_columns(
    names: Sequence[str],
    scored: ScoredPairs,
    texts: Sequence[str],
    character_ranges: Callable[[Sequence[str], NDArray[np.int64]], NDArray[np.int64]],
) -> Columns:
    """Makes extra columns for n scored pairs.

    Args:
        names: Some of `EXTRA_COLUMNS`.
        scored: The pairs' scores, with what was cut and which passages were best.
        texts: Their n texts.
        character_ranges: Turns ranges of the texts' tokens into ranges of their characters, both int64 (2, n).

    Returns:
        Columns by name, (n,) each: ``truncated`` (bool: the query or the text was cut), ``passages`` (int64: how many
        were scored), ``passage`` (the best one's text), ``passage_start`` and ``passage_end`` (int64: its characters
        in the document).
    """
    columns: Columns = {"truncated": np.any(scored.cut, axis=0), "passages": scored.passages}
    if set(names) - set(columns):
        starts, ends = character_ranges(texts, scored.best_passages)
        columns |= {"passage_start": starts, "passage_end": ends}
        passages = [text[start:end] for text, start, end in zip(texts, starts.tolist(), ends.tolist(), strict=True)]
        columns["passage"] = np.array(passages, dtype=object)
    return {name: columns[name] for name in names}


def spread(columns: Columns, names: Sequence[str], rows: NDArray[np.bool_]) -> Columns:
    """Extends columns to rows that were not scored, which get False, 0 or an empty text.

    Args:
        columns: The columns of the scored rows. Empty if no row was scored.
        names: The columns to return.
        rows: bool (n,), which rows were scored.

    Returns:
        Columns by name, (n,) each.
    """
    all_rows: Columns = {}
    for name in names:
        unread = _UNREAD[name]
        all_rows[name] = np.full(len(rows), unread, dtype=object if isinstance(unread, str) else type(unread))
        if name in columns:
            all_rows[name][rows] = columns[name]
    return all_rows
