"""Decides which pairs go into which batch, by their lengths alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DEFAULT_BATCH_SIZE = 64


def plan_batches(lengths: NDArray[np.int64], *, batch_tokens: int) -> list[NDArray[np.int64]]:
    """Sorts rows by length and cuts them into batches.

    The longest rows come first, so that a batch that is too large for the memory shows at once and not after an hour.

    Args:
        lengths: int64 (n,), tokens per row.
        batch_tokens: The most tokens of a batch, counted as if it were padded: rows times the longest row. A longer
            row becomes a batch of its own.

    Returns:
        Row numbers of each batch, int64. Every row occurs once; rows of equal length stay in their order.
    """
    order = np.argsort(-lengths, kind="stable")
    batches = []
    start = 0
    while start < len(order):
        rows = max(1, batch_tokens // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + rows])
        start += rows
    return batches


def smaller_budget(batch_tokens: int, *, rows: int, length: int) -> int:
    """Halves a budget until a batch that did not fit in memory is too large for it.

    Halving once may not be enough: a batch far smaller than the budget would come back unchanged.

    Args:
        batch_tokens: The budget, see `plan_batches`.
        rows: Rows of the batch that did not fit, at least two.
        length: Tokens of its longest row.

    Returns:
        The new budget, at least 1; unchanged if it is already small enough.
    """
    while batch_tokens > 1 and batch_tokens // max(1, length) >= rows:
        batch_tokens //= 2
    return batch_tokens
