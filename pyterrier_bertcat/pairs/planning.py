"""Which pairs go into which batch: pure planning on lengths."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DEFAULT_BATCH_SIZE = 64


def plan_batches(lengths: NDArray[np.int64], *, batch_tokens: int) -> list[NDArray[np.int64]]:
    """Cuts rows, sorted by length, into batches.

    The longest rows come first: a batch that is too large for the memory then shows at once, not after an hour.

    Args:
        lengths: int64 (n,), tokens per row.
        batch_tokens: The most tokens of a batch, counted as if it were padded: rows times the longest row. A single
            row that is longer is a batch of its own.

    Returns:
        Row numbers of each batch, int64, every row exactly once; rows of equal length stay in their order.
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
    """Half of a budget, and half of that, until a batch that did not fit is too large for it.

    Halving once may not be enough: the batch can be far smaller than the budget, and would come back as it was.

    Args:
        batch_tokens: The budget, see `plan_batches`.
        rows: Rows of the batch that did not fit, at least two.
        length: Tokens of its longest row.

    Returns:
        The budget to go on with, at least 1; unchanged where it is small enough already.
    """
    while batch_tokens > 1 and batch_tokens // max(1, length) >= rows:
        batch_tokens //= 2
    return batch_tokens
