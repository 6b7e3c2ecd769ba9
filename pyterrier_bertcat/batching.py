"""Which pairs go into which batch: pure planning on lengths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DEFAULT_BATCH_SIZE = 64


@dataclass(frozen=True)
class BatchBudget:
    """How large a batch may be.

    Attributes:
        batch_size: The most rows.
        batch_tokens: The most tokens, padding counted: rows times the longest row. A single row may be longer.
    """

    batch_size: int
    batch_tokens: int

    def rows(self, length: int) -> int:
        """How many rows of at most ``length`` tokens make a batch; at least one."""
        return max(1, min(self.batch_size, self.batch_tokens // max(1, length)))

    def halved(self, *, rows: int, length: int) -> BatchBudget:
        """Half of this budget, and half of that, until a batch of ``rows`` (2 or more) times ``length`` is too large.

        Halving once may not be enough: the batch that failed can be far smaller than the budget, and would come back
        as it was.
        """
        budget = self
        while budget.rows(length) >= max(2, rows):
            budget = BatchBudget(max(1, budget.batch_size // 2), max(1, budget.batch_tokens // 2))
        return budget


def plan_batches(lengths: NDArray[np.int64], *, batch_size: int, batch_tokens: int) -> list[NDArray[np.int64]]:
    """Cuts rows, sorted by length, into batches.

    The longest rows come first: a batch that is too large for the memory then shows at once, not after an hour.

    Args:
        lengths: int64 (n,), tokens per row.
        batch_size: The most rows of a batch.
        batch_tokens: The most tokens of a batch, padding counted. A single row that is longer is a batch of its own.

    Returns:
        Row numbers of each batch, int64, every row exactly once; rows of equal length stay in their order.
    """
    budget = BatchBudget(batch_size, batch_tokens)
    order = np.argsort(-lengths, kind="stable")
    batches = []
    start = 0
    while start < len(order):
        rows = budget.rows(int(lengths[order[start]]))
        batches.append(order[start : start + rows])
        start += rows
    return batches
